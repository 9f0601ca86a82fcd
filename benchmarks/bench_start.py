"""How long one waits: for the commands' help, for lists and status, and from a launch to the first trained step.

    python benchmarks/bench_start.py

Each command runs in a process of its own, imports and all. The first trained step is told by the network itself: a
backbone of our own notes the time when its weights have got a gradient and are read again. It is measured by the least
that Ray and torch take: `ray.init` and a worker that imports torch. Writes start.json and start.md.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from machine import machine
from turns import Row, arguments, ratio, spread, turns_of, write

BIN = Path(sys.executable).parent
# "status" is over this many trials: rows, columns, seeds
STORED = (25, 4, 10)
SHOWN = {  # by its name in the table: the command, and the seconds that it may take
    "`taghead --help`": (["taghead", "--help"], 0.5),
    "`taghead-studies --help`": (["taghead-studies", "--help"], 0.5),
    "`taghead-studies list`": (["taghead-studies", "list"], 0.5),
    "`taghead-analysis --help`": (["taghead-analysis", "--help"], 0.5),
    "`taghead-studies status`, 1,000 trials": (["taghead-studies", "status", "--results", "RESULTS"], 2.0),
}
LEAST = """
import ray
ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
@ray.remote
def load():
    import torch
    return torch.zeros(1).sum().item()
ray.get(load.remote())
"""
NETWORK = '''
import os, time
import torch

class Clock(torch.nn.Module):
    """Notes when it is used for the second time in training, and so after the first step."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv3d(3, 8, 4, stride=4)
        self.used = 0

    def forward(self, clip):
        self.used += self.training
        if self.training and self.used == 2:
            with open(os.environ["FIRST_STEP"], "w") as file:
                file.write(repr(time.time()))
        return self.conv(clip)

def factory():
    return Clock()
'''
LAUNCH = [
    "--dataset", "synthetic", "--seeds", "1", "--set", "model.backbone=clock:factory",
    "--set", "model.pretrained=false", "--set", "train.epochs=1", "--set", "train.batch_size=2",
    "--set", "data.num_frames=4",
]  # fmt: skip


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def run(words: list[str], folder: Path, **more: str) -> None:
    """A command of ours in that folder; its words are told if it fails."""
    environment = {**os.environ, **more, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONDONTWRITEBYTECODE": ""}
    command = [str(BIN / words[0]) if words[0].startswith("taghead") else words[0], *words[1:]]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: {done.stderr[-2000:]}")


def first_step(folder: Path, turn: int) -> float:
    """Seconds from the launch of a study to the end of its first trained step."""
    note = folder / f"first_step_{turn}"
    words = ["taghead-studies", "run", "components", "--data-root", str(folder / "clips"), *LAUNCH]
    start = time.time()
    run([*words, "--results", str(folder / f"launch_{turn}")], folder, FIRST_STEP=str(note))
    return float(note.read_text()) - start


def rows_of(taken: dict[str, list[float]]) -> list[Row]:
    """One row a command, and the first step by the least that it can take."""
    rows = [Row(name, "seconds", spread(taken[name]), "number", limit, "at most") for name, (_, limit) in SHOWN.items()]
    by = ratio(taken["first step"], taken["least"])
    return [*rows, Row("launch to first trained step", "`ray.init`, torch in a worker", by, "time", 1.25, "at most")]


def main() -> None:
    args = arguments(__doc__, turns=7, quick_turns=3).parse_args()
    where, turns = machine("ray", "torch", "typer"), turns_of(args)
    taken: dict[str, list[float]] = {name: [] for name in (*SHOWN, "least", "first step")}
    with tempfile.TemporaryDirectory(prefix="taghead-bench-") as name:
        folder = Path(name)
        (folder / "clock.py").write_text(NETWORK)
        run(["taghead", "prepare", "synthetic", "--size", "tiny", "--out", str(folder / "clips")], folder)
        maker, sizes = (
            Path(__file__).with_name("make_records.py"),
            zip(("rows", "columns", "seeds"), STORED, strict=True),
        )
        options = [f"--{what}={number}" for what, number in sizes]
        run([sys.executable, str(maker), str(folder / "RESULTS"), "--studies=1", *options], folder)
        for turn in range(-1, turns):  # the first is not counted
            found = {name: seconds(partial(run, words, folder)) for name, (words, _) in SHOWN.items()}
            found["least"] = seconds(lambda: run([sys.executable, "-c", LEAST], folder))
            found["first step"] = first_step(folder, turn)
            for name, one in found.items() if turn >= 0 else ():
                taken[name].append(one)
    lines = [
        f"# Starting\n\n{where['date']}, {where['cpu']}, {where['cores']} cores, load {where['load_before']} before; "
        f"Ray {where['ray']}, torch {where['torch']}. {turns} turns, each command in a process of its own.\n",
        "| what | seconds (range over turns) |\n|---|---|",
        *(f"| {name} | {spread(times)} |" for name, times in taken.items()),
    ]
    write(
        "start",
        rows_of(taken),
        out=args.out,
        machine=where,
        text="\n".join(lines),
        seconds=taken,
    )


if __name__ == "__main__":
    main()
