"""The one table of all benchmarks, from the files that they wrote: bench.md beside them.

    python benchmarks/table.py [--out results/bench]

Nothing is measured here: a benchmark that was not run again keeps its older date.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from turns import OUT, Ratio, Row, table


def rows_of(result: dict[str, Any]) -> list[Row]:
    """The rows of one benchmark's JSON file."""
    return [
        Row(**{name: value for name, value in row.items() if name not in ("met", "ratio")}, ratio=Ratio(**row["ratio"]))
        for row in result["targets"]
    ]


def page(results: dict[str, dict[str, Any]]) -> str:
    """The table, with what each benchmark was measured on."""
    lines = ["# Speed, as ratios", "", table([row for result in results.values() for row in rows_of(result)]), ""]
    lines += ["In brackets the range over turns; a row reaches its target by its median. Measured on:", ""]
    for name, result in results.items():
        where = result["machine"]
        lines.append(
            f"- [{name}]({name}.md): {where['date']}, {where['cpu']}, {where['cores']} cores, "
            f"load {where['load_before']} before."
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    if not any(args.out.glob("*.json")):
        raise SystemExit(f"{args.out}: no benchmark has written anything there; run make bench first.")
    results = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(args.out.glob("*.json"))}
    text = page({name: result for name, result in results.items() if "targets" in result})
    (args.out / "bench.md").write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
