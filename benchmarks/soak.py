"""A study under random kills against the same study undisturbed: ``make soak``, or ``python benchmarks/soak.py``.

The real command runs the component ablation on generated clips, once in peace and once while its driver and its workers
are killed (SIGKILL, SIGINT, SIGTERM) at random moments: at start-up, in training, and while a trial is being finished.
After each end of the driver the same command is launched again. Nothing may be lost, and every number must come out the
same: histories, predictions, and the tables byte for byte. Only descendants of the driver that this file started are
ever killed.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

TOP = Path(__file__).resolve().parents[1]
STUDY = "components"
KINDS = ("driver killed", "worker killed", "driver interrupted (SIGINT)", "driver terminated (SIGTERM)")
SIGNALS = dict(zip(KINDS, (signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM), strict=True))
# as a shell shows them: 128 and the signal, whether the driver caught it or died of it
STATUSES = {"driver killed": 137, "driver interrupted (SIGINT)": 130, "driver terminated (SIGTERM)": 143}
PHASES = ("start-up", "training", "finishing")
PATIENCE = 180.0  # seconds that a driver may take to end after a signal
NOTICED = 90.0  # seconds after the last launch in which Ray's agents notice that their node was killed: about a minute
FORMATS = "md,csv,tex,html"


@dataclass
class Toll:
    """What the disturbed run has seen.

    Attributes:
        kills: By kind.
        phases: Kills by phase.
        launches: Of the command.
        wrong: Exit statuses of signalled drivers that are not the promised ones.
        rows: Rows of history that each unfinished trial was seen with, by trial id: they may only grow.
        undone: Epochs that were finished and then seen no more.
        seen: Every process of every driver, by its id and the kernel's start time.
    """

    kills: Counter[str] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)
    launches: int = 0
    wrong: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    undone: int = 0
    seen: set[tuple[int, str]] = field(default_factory=set)

    def look(self, results: Path, driver: int) -> None:
        """Takes note of the histories and processes that there are."""
        for path in (results / "running").glob("*/history.csv"):
            try:
                rows = path.read_bytes().count(b"\n") - 1
            except FileNotFoundError:  # finished in between
                continue
            self.undone += max(0, self.rows.get(path.parent.name, 0) - rows)
            self.rows[path.parent.name] = rows
        self.seen |= {(pid, start) for pid, start, _ in descendants(driver)}


def descendants(pid: int) -> Iterator[tuple[int, str, str]]:
    """The processes that a process has started, and theirs: id, start time, command line."""
    children: dict[int, list[tuple[int, str]]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        children.setdefault(int(words[1]), []).append((int(path.parent.name), words[19]))
    waiting = [pid]
    while waiting:
        for child, start in children.get(waiting.pop(), ()):
            waiting.append(child)
            try:
                yield child, start, Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue


def is_alive(pid: int, start: str) -> bool:
    """Whether a process of that id and start time lives."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return words[19] == start and words[0] not in "ZX"


def command(arguments: argparse.Namespace, results: Path) -> list[str]:
    """The launch."""
    words = [sys.executable, "-m", "studies", "run", STUDY, "--dataset", "synthetic", "--data-root", arguments.data]
    words += ["--cache", arguments.folder / "frames", "--results", results, "--seeds", arguments.seeds]
    words += [word for text in arguments.set or ["train.epochs=4"] for word in ("--set", text)] + ["--device", "cpu"]
    return [str(word) for word in (*words, "--workers", 2, "--num-cpus", 2)]


def environment() -> dict[str, str]:
    """Of everything that is started: this checkout, one thread a worker."""
    paths = [str(TOP), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def launch(words: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Starts a command whose words go to a log."""
    # a job in the background of a script ignores SIGINT, and so would all that it starts
    heed: Callable[[], Any] = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with log.open("ab") as file:
        return subprocess.Popen(words, stdout=file, stderr=file, env=environment(), cwd=log.parent, preexec_fn=heed)


def wait(driver: subprocess.Popen[bytes], toll: Toll, results: Path, until: Callable[[], bool]) -> bool:
    """Waits for a moment; False where the driver has ended before."""
    looked = 0.0
    while not until():
        if driver.poll() is not None:
            return False
        if time.monotonic() - looked > 0.25:
            toll.look(results, driver.pid)
            looked = time.monotonic()
        time.sleep(0.002)
    toll.look(results, driver.pid)
    return driver.poll() is None


def moment(phase: str, results: Path, draw: random.Random) -> Callable[[], bool]:
    """When to kill: a test that is true from some moment of a phase on."""
    if phase == "start-up":
        due = time.monotonic() + draw.uniform(0, 12)
        return lambda: time.monotonic() > due
    # A checkpoint is written in training; predictions just before the record, the move and the end of the claim.
    file, longest = ("checkpoint.pt", 4.0) if phase == "training" else ("predictions.npz", 0.03)
    before, due_at, delay = _written(results, file), [0.0], draw.uniform(0, longest)

    def is_due() -> bool:
        if not due_at[0] and _written(results, file) - before:
            due_at[0] = time.monotonic() + delay
        return 0 < due_at[0] < time.monotonic()

    return is_due


def _written(results: Path, file: str) -> set[tuple[str, float]]:
    """Which unfinished trials have a file, and from when."""
    found = set()
    for path in (results / "running").glob(f"*/{file}"):
        with suppress(FileNotFoundError):
            found.add((path.parent.name, path.stat().st_mtime))
    return found


def kill(driver: subprocess.Popen[bytes], kind: str, draw: random.Random) -> bool:
    """Sends one signal; False where there is no worker to send it to."""
    if kind != "worker killed":
        driver.send_signal(SIGNALS[kind])
        return True
    workers = [pid for pid, _, words in descendants(driver.pid) if words.startswith("ray::ImplicitFunc")]  # Tune's
    if not workers:
        return False
    try:
        os.kill(draw.choice(workers), SIGNALS[kind])
    except ProcessLookupError:
        return False
    return True


def disturb(arguments: argparse.Namespace, results: Path) -> Toll:
    """Runs the study under kills until it is done.

    Raises:
        SystemExit: It does not come to an end.
    """
    toll, draw, log = Toll(), random.Random(arguments.seed), arguments.folder / "disturbed.log"
    plan = [(PHASES[number % len(PHASES)], KINDS[number % len(KINDS)]) for number in range(arguments.kills)]
    draw.shuffle(plan)
    status = None
    while status != 0:
        toll.launches += 1
        if toll.launches > arguments.kills + 20:
            raise SystemExit(f"not done after {toll.launches} launches; see {log}")
        driver = launch(command(arguments, results), log)
        phase = kind = ""
        while plan and kind in ("", "worker killed"):
            phase, kind = plan[-1]
            if not (wait(driver, toll, results, moment(phase, results, draw)) and kill(driver, kind, draw)):
                phase = kind = ""
                if driver.poll() is not None:
                    break
                continue  # no worker was there yet
            plan.pop()
            toll.kills[kind] += 1
            toll.phases[phase] += 1
            tell(f"{sum(toll.kills.values()):3} {kind}, {phase}")
        late = time.monotonic() + PATIENCE
        wait(driver, toll, results, lambda kind=kind, late=late: kind in STATUSES and time.monotonic() > late)
        if driver.poll() is None:
            toll.wrong.append(f"{kind}: still there after {PATIENCE:.0f} s")
            driver.kill()
        status = driver.wait()
        status = 128 - status if status < 0 else status
        if phase != "start-up" and status not in (0, STATUSES.get(kind, status)):
            toll.wrong.append(f"{kind}: {status}")
    return toll


def tell(text: str) -> None:
    """Prints at once, with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def records(results: Path) -> dict[str, dict]:
    """All records, by trial id."""
    return {path.parent.name: json.loads(path.read_text()) for path in (results / "trials").glob("*/record.json")}


def tables(results: Path, out: Path) -> dict[str, bytes]:
    """All that ``taghead-analysis tables`` writes, by file name."""
    words = [sys.executable, "-m", "analysis", "tables", STUDY, "--results", results, "--out", out, "--format", FORMATS]
    subprocess.run(
        [str(word) for word in words], check=True, env=environment(), stdout=subprocess.DEVNULL, cwd=out.parent
    )
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def differences(peace: Path, war: Path) -> list[str]:
    """Trials that are missing, or whose scores, histories or predictions are not the same bits."""
    one, other = records(peace), records(war)
    found = [f"{name}: lost" for name in one.keys() - other.keys()]
    found += [f"{name}: not of the study" for name in other.keys() - one.keys()]
    for name in one.keys() & other.keys():
        for key in ("status", "metrics", "epoch"):
            if one[name][key] != other[name][key]:
                found.append(f"{name}: {key} differs")
        first, second = (root / "trials" / name for root in (peace, war))
        if (first / "history.csv").read_bytes() != (second / "history.csv").read_bytes():
            found.append(f"{name}: history differs")
        with np.load(first / "predictions.npz") as a, np.load(second / "predictions.npz") as b:
            if any(not np.array_equal(a[key], b[key], equal_nan=key == "logits") for key in a):
                found.append(f"{name}: predictions differ")
    return found


def outliving(seen: set[tuple[int, str]]) -> list[int]:
    """Those of some processes that do not end by themselves in time."""
    end = time.monotonic() + NOTICED
    while (alive := [pid for pid, start in seen if is_alive(pid, start)]) and time.monotonic() < end:
        time.sleep(1)
    return alive


def strays(results: Path) -> list[str]:
    """What the kills have left lying about."""
    left = [path.name for path in (results / "running").iterdir()]
    return left + [str(path) for path in (results / "trials").glob("*/.*")]


def report(arguments: argparse.Namespace, toll: Toll, seconds: float, peace: Path, war: Path) -> bool:
    """Prints what came out; gives whether all is well."""
    found, left = records(war), strays(war)
    attempts = sum(record["attempt"] for record in found.values())
    wrong = differences(peace, war)
    same = tables(peace, arguments.folder / "peace") == tables(war, arguments.folder / "war")
    alive = outliving(toll.seen)
    print(f"undisturbed: {seconds:.0f} s")
    print(f"kills: {sum(toll.kills.values())} of {arguments.kills}")
    for counts in (toll.kills, toll.phases):
        print("  " + ", ".join(f"{name}: {number}" for name, number in sorted(counts.items())))
    print(
        f"trials: {len(found)}, launches: {toll.launches}, attempts: {attempts}, begun again: {attempts - len(found)}"
    )
    print(
        f"epochs in the records: {sum(record['epoch'] for record in found.values())}, finished and lost: {toll.undone}"
    )
    print(f"lost trials: {sum(text.endswith(': lost') for text in wrong)}")
    print(f"trials that differ in status, scores, history or predictions: {len(wrong)}", *wrong, sep="\n  ")
    print(f"exit statuses other than 130 (SIGINT) and 143 (SIGTERM): {toll.wrong or 0}")
    print(f"processes that outlived their driver by {NOTICED:.0f} s: {len(alive)}; files left over: {left or 0}")
    print(f"tables equal: {'yes' if same else 'no'} ({FORMATS})")
    return same and not (wrong or toll.undone or toll.wrong or alive or left)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the order of the kills")
    parser.add_argument("--seeds", type=int, default=18, help="of the study: five trials a seed")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="of the study; train.epochs=4 if not given")
    parser.add_argument("--size", default="tiny", help="of the generated clips: tiny, small, ...")
    parser.add_argument("--data", type=Path, help="a folder of generated clips; made if not given")
    parser.add_argument("--folder", type=Path, help="where to work, kept at the end; a temporary one if not given")
    arguments = parser.parse_args()
    kept, arguments.folder = arguments.folder is not None, arguments.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    arguments.folder = arguments.folder.resolve()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.data is None:
        arguments.data = arguments.folder / "clips"
        words = ["-m", "taghead", "prepare", "synthetic", "--size", arguments.size, "--out", str(arguments.data)]
        subprocess.run([sys.executable, *words], check=True, env=environment(), stdout=subprocess.DEVNULL)
    peace, war = (arguments.folder / name for name in ("undisturbed", "disturbed"))
    began = time.monotonic()
    tell("undisturbed")
    if launch(command(arguments, peace), arguments.folder / "undisturbed.log").wait() != 0:
        raise SystemExit(f"the undisturbed run failed; see {arguments.folder}")
    seconds = time.monotonic() - began
    tell(f"done in {seconds:.0f} s; now under kills")
    well = report(arguments, disturb(arguments, war), seconds, peace, war)
    if well and not kept:
        shutil.rmtree(arguments.folder)
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
