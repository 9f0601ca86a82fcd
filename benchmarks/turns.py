"""What all benchmarks share: ways that take turns within one run, ratios with their spread, and rows with a target.

A benchmark writes NAME.json with its own numbers and, under "targets", what `table.py` puts into the one table.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

AT_LEAST = 0.1  # seconds of one measurement; a quick way is called several times
OUT = Path("results/bench")


@dataclass(frozen=True)
class Ratio:
    """The median over turns of one way's time by another's of the same turn, and the range of these."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{digits(self.median)} ({digits(self.low)} to {digits(self.high)})"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        part: What is measured, in few words.
        peer: What it is measured by.
        ratio: Of the two, as ``kind`` says.
        kind: ``time`` for our time by the peer's; ``speed`` for the peer's time by ours; ``number`` for a number that
            is no ratio of times (a share of time, a difference).
        target: What the ratio is to reach.
        bound: Whether it must be ``at most`` or ``at least`` the target; None where there is no target.
    """

    part: str
    peer: str
    ratio: Ratio
    kind: Literal["time", "speed", "number"]
    target: float | None = None
    bound: Literal["at most", "at least"] | None = None

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the target; None where there is none."""
        if self.target is None:
            return None
        return self.ratio.median <= self.target if self.bound == "at most" else self.ratio.median >= self.target


def arguments(description: str | None, *, turns: int, quick_turns: int) -> argparse.ArgumentParser:
    """A benchmark's options: ``--turns``, ``--quick`` for fewer of them, ``--threads`` and ``--out``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{quick_turns} turns instead of {turns}, smaller sizes")
    parser.add_argument("--turns", type=int, help=f"instead of {turns}, or of {quick_turns} with --quick")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.set_defaults(all_turns=turns, quick_turns=quick_turns)
    return parser


def turns_of(args: argparse.Namespace) -> int:
    """How many turns the options ask for."""
    return args.turns or (args.quick_turns if args.quick else args.all_turns)


def measure(ways: Mapping[str, Callable[[], object]], *, turns: int) -> dict[str, list[float]]:
    """Seconds of a call of each way in each turn: A B C A B C ..., after one call of each that is not counted."""
    repeats = {name: max(1, round(AT_LEAST / max(_seconds(way, 1), 1e-9))) for name, way in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, way in ways.items():
            times[name].append(_seconds(way, repeats[name]))
    return times


def _seconds(way: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        way()
    return (time.perf_counter() - start) / repeats


def ratio(times: list[float], by: list[float]) -> Ratio:
    """Of two ways' times, turn by turn."""
    return spread([one / other for one, other in zip(times, by, strict=True)])


def spread(values: list[float]) -> Ratio:
    """Median and range of numbers."""
    return Ratio(statistics.median(values), min(values), max(values))


def digits(number: float) -> str:
    """Two significant digits, or all before the point."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.2g}"


def write(name: str, targets: list[Row], *, out: Path, machine: dict[str, Any], text: str, **more: Any) -> None:
    """Writes NAME.json and NAME.md, and prints the latter.

    Args:
        name: Of the benchmark.
        targets: For the table of all benchmarks.
        out: The folder; made if it is not there.
        machine: From `machine.machine`.
        text: The benchmark's own page in Markdown; the rows are added to it.
        more: Further numbers for the JSON file.
    """
    out.mkdir(parents=True, exist_ok=True)
    lines = [{**asdict(row), "met": row.met} for row in targets]
    (out / f"{name}.json").write_text(json.dumps({"machine": machine, "targets": lines, **more}, indent=1) + "\n")
    page = f"{text.rstrip()}\n\n{table(targets)}\n"
    (out / f"{name}.md").write_text(page, encoding="utf-8")
    print(page, end="")


def table(rows: list[Row]) -> str:
    """Rows as a Markdown table."""
    head = ["| part | measured by | ratio (range over turns) | to reach | reached |", "|---|---|---|---|---|"]
    return "\n".join([*head, *(_line(row) for row in rows)])


def _line(row: Row) -> str:
    unit = {"time": " x its time", "speed": " x as fast", "number": ""}[row.kind]
    target = "-" if row.target is None else f"{row.bound} {row.target:g}"
    met = {None: "-", True: "yes", False: "**no**"}[row.met]
    return f"| {row.part} | {row.peer} | {row.ratio}{unit} | {target} | {met} |"
