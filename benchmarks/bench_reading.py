"""Reading at scale: the tidy frame, all tables and the report of up to 20,000 records, beside json and pandas by hand.

    python benchmarks/bench_reading.py --turns 3

Each job runs in a process of its own, on folders that make_records.py writes first; what is timed comes after the
imports, which the table gives apart. The peer is what one would write by hand: it parses every record, takes the scores
and the settings that differ, and averages; it knows no plan, checks nothing, tests no difference and sees no
predictions. Its scores and ours must agree. Jobs take turns, so that what else the machine does meets all alike, and
the CPU seconds hardly depend on that. Writes reading.json and reading.md.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import machine
from turns import Row, arguments, ratio, spread, turns_of, write

# by name: studies, rows, columns, seeds
SHAPES = {
    "1,000": (1, 25, 4, 10),
    "10,000": (10, 25, 4, 10),
    "20,000": (20, 25, 4, 10),
    "10,000 in one study": (1, 100, 10, 10),
}
PEER = "json and pandas by hand"
Job = Callable[[], tuple[int, float]]  # gives the number of complete trials and the mean of their Top-1, in percent


def by_hand(results: Path, out: Path) -> Job:
    import pandas as pd

    def run() -> tuple[int, float]:
        lines = []
        for path in (results / "trials").glob("*/record.json"):
            record = json.loads(path.read_text(encoding="utf-8"))
            head, train = record["config"]["head"], record["config"]["train"]
            settings = [head["alpha"], head["k_prop"], train["lr"], train["epochs"]]
            lines.append([*settings, record["seed"], record["status"], *map(record["metrics"].get, ("top1", "mca"))])
        keys = ["alpha", "k_prop", "lr", "epochs"]
        frame = pd.DataFrame(lines, columns=[*keys, "seed", "status", "top1", "mca"])
        done = frame[frame["status"] == "complete"]
        done.groupby(keys)[["top1", "mca"]].agg(["mean", "std", "count"]).to_csv(out / "by_hand.csv")
        return len(done), 100 * done["top1"].mean()

    return run


def tidy_frame(results: Path, out: Path) -> Job:
    import pandas as pd

    from analysis import cells
    from studies.plan import names

    def run() -> tuple[int, float]:
        frame = pd.concat([cells.read(results, name) for name in names(results)])
        values = frame.loc[(frame["status"] == "complete") & (frame["metric"] == "top1"), "value"]
        return len(values), values.mean()

    return run


def tables(results: Path, out: Path) -> Job:
    from analysis.formats import FORMATS
    from analysis.tables import study_table
    from studies.plan import names, read_plan

    def run() -> tuple[int, float]:
        means = []
        for name in names(results):
            table = study_table(results, read_plan(results, name))
            for kind in ("md", "csv", "tex"):
                (out / f"{name}.{kind}").write_text(FORMATS[kind](table), encoding="utf-8")
            means.append(table.data[table.data["metric"] == "top1"])
        count = sum(int(part["n"].sum()) for part in means)
        return count, sum(float((part["mean"] * part["n"]).sum()) for part in means) / count

    return run


def report(results: Path, out: Path) -> Job:
    from analysis.report import write_report
    from studies.plan import names

    def run() -> tuple[int, float]:
        write_report(results, names(results), out / "report.html", files=True)
        return 0, 0.0  # it shows what the tables show

    return run


QUICK = ("10,000",)  # of SHAPES, without the twice as many
JOBS = {PEER: by_hand, "tidy frame": tidy_frame, "all tables": tables, "report": report}


def work(job: str, results: Path) -> dict[str, Any]:
    """Runs a job here; called in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        run = JOBS[job](results, Path(folder))
        imported, start = time.process_time(), time.perf_counter()
        trials, score = run()
        seconds, cpu = time.perf_counter() - start, time.process_time() - imported
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "cpu": cpu, "import_cpu": imported, "mib": peak, "trials": trials, "score": score}


def in_a_process(job: str, results: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--job", job, "--results", str(results)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


Runs = dict[tuple[str, str], list[dict[str, Any]]]  # by folder and job, turn by turn


def measure(folders: dict[str, Path], turns: int) -> Runs:
    """Each job on each folder, in turn."""
    runs: Runs = {}
    for _ in range(turns):
        for store, folder in folders.items():
            found = {job: in_a_process(job, folder) for job in JOBS}
            for job in ("tidy frame", "all tables"):
                assert found[job]["trials"] == found[PEER]["trials"], (store, job)
                assert abs(found[job]["score"] - found[PEER]["score"]) < 1e-9, (store, job)
            for job, one in found.items():
                runs.setdefault((store, job), []).append({**one, "ratio": one["cpu"] / found[PEER]["cpu"]})
    return runs


def rows_of(runs: Runs) -> list[dict[str, Any]]:
    """The median of each job's turns on each folder."""
    names = ("seconds", "cpu", "import_cpu", "ratio", "mib")
    return [
        {"store": store, "job": job, **{name: statistics.median(one[name] for one in many) for name in names}}
        for (store, job), many in runs.items()
    ]


def targets(runs: Runs) -> list[Row]:
    """Seconds and memory at 10,000 trials, and how both grow with twice as many."""
    rows = []
    for job, seconds in (("tidy frame", 10), ("all tables", 10), ("report", 20)):
        turns = runs["10,000", job]
        taken = spread([one["seconds"] for one in turns])
        rows.append(Row(f"10,000 records, {job}", "seconds", taken, "number", seconds, "at most"))
        if ("20,000", job) in runs:
            grown = ratio([one["cpu"] for one in runs["20,000", job]], [one["cpu"] for one in turns])
            rows.append(Row(f"20,000 records, {job}", "10,000 records, CPU seconds", grown, "time", 2.2, "at most"))
    memory = spread([one["mib"] for one in runs["10,000", "report"]])
    return [*rows, Row("10,000 records, report", "peak memory, MiB", memory, "number", 1024, "at most")]


def markdown(result: dict[str, Any]) -> str:
    where = result["machine"]
    lines = [
        "# Reading",
        "",
        f"{where['date']}, {where['cpu']}, {where['cores']} cores, load {where['load_before']} before; pandas "
        f"{where['pandas']}; median of {result['turns']} turn(s), each job in a process of its own.",
        "Seconds and CPU seconds are without the imports; the ratio is that of CPU seconds to the job by hand, which "
        "checks nothing, tests no difference and reads no predictions. Peak memory is the whole process's.",
        "",
        "| finished trials | job | seconds | CPU seconds | ratio | CPU seconds of the imports | peak, MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        lines.append(
            f"| {row['store']} | {row['job']} | {row['seconds']:.1f} | {row['cpu']:.1f} | {row['ratio']:.1f} | "
            f"{row['import_cpu']:.1f} | {row['mib']:.0f} |"
        )
    cpu = {(row["store"], row["job"]): row["cpu"] for row in result["rows"]}
    if ("20,000", PEER) in cpu:
        growth = [f"{job} {cpu['20,000', job] / cpu['10,000', job]:.2f} x" for job in JOBS]
        lines += ["", f"CPU seconds at twice as many trials, 20,000 to 10,000: {', '.join(growth)}."]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = arguments(__doc__, turns=3, quick_turns=1)
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        print(json.dumps(work(args.job, args.results)))
        return
    where, shapes = machine("pandas"), {name: SHAPES[name] for name in (QUICK if args.quick else SHAPES)}
    with tempfile.TemporaryDirectory() as folder:
        folders = {name: Path(folder) / str(number) for number, name in enumerate(shapes)}
        for name, sizes in shapes.items():
            options = [f"--{what}={n}" for what, n in zip(("studies", "rows", "columns", "seeds"), sizes, strict=True)]
            maker = Path(__file__).with_name("make_records.py")
            subprocess.run([sys.executable, maker, folders[name], *options], check=True, stdout=subprocess.DEVNULL)
        runs = measure(folders, turns_of(args))
    result = {"machine": where, "turns": turns_of(args), "rows": rows_of(runs)}
    write("reading", targets(runs), out=args.out, text=markdown(result), **result)


if __name__ == "__main__":
    main()
