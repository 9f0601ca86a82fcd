"""A whole study against a shell loop: the component ablation on two workers, and `taghead train` once a trial.

    python benchmarks/bench_study.py

Both train the same trials on the small generated set, whose frames are decoded beforehand, with one torch thread a
trial; the loop starts one process after another, as a script does. Their predictions are compared bit by bit. The
cores' busy share is that of the whole machine, by /proc/stat. Writes study.json and study.md.
"""

import hashlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine
from turns import Row, arguments, ratio, spread, turns_of, write

from analysis.provenance import setting
from studies.plan import Plan, read_plan

BIN = Path(sys.executable).parent
SEEDS, QUICK_SEEDS = 3, 1


def run(*words: str) -> float:
    """Runs a command of ours; gives the seconds that it took."""
    start = time.perf_counter()
    done = subprocess.run([BIN / words[0], *words[1:]], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: {done.stderr[-2000:]}")
    return time.perf_counter() - start


def busy() -> tuple[int, int]:
    """Ticks that the machine's cores have worked, and all ticks."""
    user, nice, system, idle, wait, *rest = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:])
    worked = user + nice + system + sum(rest[:2])
    return worked, worked + idle + wait


def options(plan: Plan, row: str) -> list[str]:
    """A row's overrides as ``--set`` for a single trial."""
    return [word for key, value in plan.overrides[row].items() for word in ("--set", f"{key}={setting(value)}")]


def loop(plan: Plan, data: list[str], folder: Path) -> float:
    """What a shell script would do."""
    cells = [(cell.row, seed, trial) for cell in plan.cells for seed, trial in cell.trials.items()]
    return sum(
        run("taghead", "train", *data, *options(plan, row), "--seed", str(seed), "--out", str(folder / trial))
        for row, seed, trial in cells
    )


def predictions(folder: Path) -> dict[str, str]:
    """A hash of each trial's predictions."""
    paths = folder.glob("*/predictions.npz")
    return {path.parent.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def one_turn(folder: Path, data: list[str], seeds: int) -> tuple[float, float, float]:
    """Seconds of the study, busy share of the cores in it, seconds of the loop; stops if their results differ."""
    before = busy()
    words = ["components", *data, "--seeds", str(seeds), "--results", str(folder / "study")]
    ours = run("taghead-studies", "run", *words)
    worked, ticks = (after - earlier for after, earlier in zip(busy(), before, strict=True))
    plan = read_plan(folder / "study", "components")
    peer = loop(plan, data, folder / "loop")
    if predictions(folder / "study" / "trials") != predictions(folder / "loop"):
        sys.exit("the study's predictions and the loop's differ")
    return ours, worked / ticks, peer


def main() -> None:
    args = arguments(__doc__, turns=3, quick_turns=1).parse_args()
    seeds, turns = QUICK_SEEDS if args.quick else SEEDS, turns_of(args)
    where = machine("ray", "torch")
    with tempfile.TemporaryDirectory(prefix="taghead-bench-") as name:
        folder = Path(name)
        data = ["--dataset", "synthetic", "--data-root", str(folder / "clips"), "--cache", str(folder / "frames")]
        run("taghead", "prepare", "synthetic", "--size", "small", "--out", str(folder / "clips"))
        run("taghead", "prepare", "cache", *data)
        taken = [one_turn(folder / str(turn), data, seeds) for turn in range(turns)]
    ours, share, peer = (list(column) for column in zip(*taken, strict=True))
    what = f"COMPONENTS x {seeds} seed{'s' if seeds > 1 else ''}, 2 workers"
    rows = [
        Row(what, "shell loop over `taghead train`", ratio(peer, ours), "speed", 1.5, "at least"),
        Row(f"{what}: cores busy", "share of the time", spread(share), "number", 0.85, "at least"),
    ]
    text = (
        f"# A whole study\n\n{where['date']}, {where['cpu']}, {where['cores']} cores, load {where['load_before']} "
        f"before; Ray {where['ray']}, torch {where['torch']}. {turns} turn(s); predictions equal, bit for bit.\n"
        f"Seconds: study {spread(ours)}, loop {spread(peer)}."
    )
    write("study", rows, out=args.out, machine=where, text=text, study=ours, busy=share, loop=peer)


if __name__ == "__main__":
    main()
