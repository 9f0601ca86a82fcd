"""The README's parts that are made from committed files and from counts: `make readme` writes them, a test checks them.

    python -P tests/readme_parts.py     # -P: the folders beside this file are not the packages

A part stands between `<!-- NAME: by make readme -->` and `<!-- end of NAME -->`.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

TOP = Path(__file__).parent.parent
FULL, BASE = "Full", "B"  # rows of the demo's table
# One row a part of the table of benchmarks, by how it begins; a target that was missed is shown beside them.
SHOWN = (
    "backbone forward, r2plus1d_34,",
    "decode, 150 frames of H.264, 32 sampled, 2 clips at once | naive |",
    "frame cache, an epoch of batches | normalising",
    "the head's training step, C = 512, N = 196, batch 8, FFN 512",
    "overhead of a trial |",
    "24 linear heads together (narrow",
    "propagation with mean readout, forward, T = 4, C = 512",
    "propagation for other readouts, forward, T = 4, C = 512 | dense",
    "10,000 records, report",
    "`taghead-studies status`",
    "a training step, narrow",
    "COMPONENTS x 3 seeds, 2 workers",
    "1,344 graphs on 1,000 clips, linear",
    "tokens in float16",
)


def demo() -> str:
    """What the demo printed: the full model in words, the table, the t-SNE panels."""
    folder = TOP / "results/demo"
    data = pd.read_csv(folder / "tables/components.csv").query("metric == 'top1'").set_index("row")
    page = (folder / "tables/components.md").read_text(encoding="utf-8")
    clips, classes, chance = _found(r"(\d+) test clips of (\d+) classes \(chance ([\d.]+) %\)", page)
    full = data.loc[FULL]
    said = [
        f"What `make demo` printed here (mean ± standard deviation in percent over {full['n']} seeds, {clips} test",
        f"clips of {classes} classes, chance {chance} %; in brackets the 95 % interval of the difference; \\*:",
        "p < 0.05 in a paired test over seeds, corrected for the table's tests). The full model is at",
        f"{full['mean']:.1f} ± {full['sd']:.1f} % (n = {full['n']}), the lower end of its 95 % interval at",
        f"{full['low']:.1f} %,",
        f"{full['low'] * int(classes) / 100:.1f} times chance. {_verdict(data)} [FINDINGS.md](FINDINGS.md) says what",
        "that does and does not mean.",
    ]
    table = [line for line in page.splitlines() if line.startswith("|")]
    picture = "![t-SNE of the pooled vectors on generated clips](results/demo/figures/stages_synthetic_tsne.png)"
    return "\n".join([" ".join(said), "", *table, "", picture])


def _verdict(data: pd.DataFrame) -> str:
    """What these clips say of the head: whether the full model's interval of differences lies on one side of zero."""
    low, high = data.loc[FULL, ["difference_low", "difference_high"]]
    if high < 0:
        return f"On these clips the head does not help: it is worse than {BASE}."
    return f"On these clips the head helps over {BASE}." if low > 0 else "On these clips no difference can be told."


def backbones() -> str:
    """The table of backbones, as counted."""
    from analysis.complexity import backbones_table
    from taghead.backbones import BACKBONES

    lines = [
        "| backbone | step, frames | C | parameters | trained at | 32 x 112 | 64 x 112 |",
        "|---|--:|--:|--:|---|---|---|",
    ]
    for row in backbones_table().rows:
        cells = (f"`{row[0]}`", str(BACKBONES[row[0]].temporal_stride), *row[1:6])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def speed() -> str:
    """Of the table of all benchmarks one row a part, and every target that was missed; when and on what."""
    page = (TOP / "results/bench/bench.md").read_text(encoding="utf-8")
    head, rule, *rows = (line for line in page.splitlines() if line.startswith("|"))
    begins = tuple(f"| {part}" for part in SHOWN)
    shown = [row for row in rows if "**no**" in row or (row.endswith("| yes |") and row.startswith(begins))]
    measured = sorted(set(re.findall(r"^- \[.+?\]\(.+?\): (.+), load", page, re.MULTILINE)))
    return "\n".join([head, rule, *shown, "", f"Measured on {'; '.join(measured)}."])


PARTS: dict[str, Callable[[], str]] = {"demo": demo, "backbones": backbones, "speed": speed}


def written(readme: str, name: str) -> str:
    """A README with one of its parts made anew.

    Args:
        readme: Its text.
        name: A key of `PARTS`.
    """
    begin, end = f"<!-- {name}: by make readme -->\n", f"\n<!-- end of {name} -->"
    before, rest = readme.split(begin)
    return f"{before}{begin}{PARTS[name]()}{end}{rest.split(end, 1)[1]}"


def _found(pattern: str, text: str) -> tuple[str, ...]:
    found = re.search(pattern, text)
    assert found, f"no {pattern!r}"
    return found.groups()


def main() -> None:
    path = TOP / "README.md"
    text = path.read_text(encoding="utf-8")
    for name in PARTS:
        text = written(text, name)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
