"""The command line of studies: ``taghead-studies list | plan | run | status | retry``.

Nothing heavy is loaded before a command needs it: ``list`` and ``--help`` load neither torch nor Ray.
"""

import signal
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studies import catalog, summary
from studies.feed import GridFeed, run_here, trials_of
from studies.launch import Changes, find_root, left, load, no_longer, plan_all
from studies.plan import Plan, names, read_plan, write_plan
from studies.store import Store
from studies.study import Study
from studies.trial import Trial
from taghead.command import run_app
from taghead.errors import InputError

if TYPE_CHECKING:
    from taghead.run import Machine

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Studies: tables of TAG-Head experiments that run, resume and grow.",
)

Names = Annotated[list[str], typer.Argument(help="Studies of the list, or a study of your own: my_study.py:STUDY.")]
Datasets = Annotated[list[str] | None, typer.Option("--dataset", help="In place of the study's own; repeatable.")]
Recipe = Annotated[str | None, typer.Option(help="The bases: paper, released or small.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Changes every row's base.")]
Seeds = Annotated[str | None, typer.Option(help="How many (3: 0, 1, 2) or which (0,4).")]
Keeps = Annotated[list[str] | None, typer.Option("--keep", help="Also keep weights, embeddings or frame_means.")]
Name = Annotated[str | None, typer.Option(help="Another name for the study, to keep a variant apart.")]
DataRoot = Annotated[Path, typer.Option(help="Folder of the data set, or one with a sub-folder for each data set.")]
Weights = Annotated[Path | None, typer.Option(help="File or folder with the backbone's public weights.")]
Missing = Annotated[str, typer.Option(help="error or skip: what to do about clips that are not there.")]
Results = Annotated[Path, typer.Option(help="Where trials and plans are kept.")]


class Stop:
    """A handler of the signals that stop a run; remembers which one came, since Ray raises its own in place of ours."""

    number = int(signal.SIGINT)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Interrupts whatever runs."""
        self.number = number
        raise KeyboardInterrupt


@app.command("list")
def list_studies() -> None:
    """The studies of the paper and ours."""
    for study in catalog.STUDIES.values():
        print(f"{study.name:12} {len(study.rows):4} rows on {', '.join(study.datasets):23} {study.title}")
        print(textwrap.fill(study.text, 110, initial_indent=" " * 13, subsequent_indent=" " * 13))
    if "backbones" not in catalog.STUDIES:
        print(f"{'backbones':12} Table 3, which is not there yet: it needs {', '.join(catalog.TABLE_3.values())}.")


@app.command()
def plan(
    studies: Names,
    dataset: Datasets = None,
    recipe: Recipe = None,
    overrides: Overrides = None,
    seeds: Seeds = None,
    keep: Keeps = None,
    name: Name = None,
    data_root: DataRoot = Path("data"),
    weights: Weights = None,
    missing: Missing = "error",
    results: Results = Path("results"),
) -> None:
    """What a launch would do: its trials, and which of them are done, new or to be completed. Changes nothing."""
    changes = _changes(dataset, recipe, overrides, seeds, keep, name)
    wanted = _wanted(studies, changes)
    machines = _machines(wanted, data_root=data_root, weights=weights, missing=missing)
    store = Store(results)
    plans = _plans(wanted, machines)
    for one in plans:
        summary.show_plan(one, trials_of([one]), store)
    if len(plans) > 1:
        print(f"together: {len(left(trials_of(plans), store))} trials to run")


@app.command()
def run(
    studies: Names,
    dataset: Datasets = None,
    recipe: Recipe = None,
    overrides: Overrides = None,
    seeds: Seeds = None,
    keep: Keeps = None,
    name: Name = None,
    data_root: DataRoot = Path("data"),
    weights: Weights = None,
    missing: Missing = "error",
    results: Results = Path("results"),
    cache: Annotated[Path | None, typer.Option(help="Folder for decoded frames.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Trials at once at the most; all that fit if not given.")
    ] = None,
    num_cpus: Annotated[int | None, typer.Option(min=1, help="CPUs that Ray may use; all if not given.")] = None,
    threads_per_trial: Annotated[int, typer.Option(min=1, help="CPUs, and torch's threads, of a trial.")] = 1,
    gpus_per_trial: Annotated[
        float | None, typer.Option(min=0, help="A fraction lets trials share a GPU; 1 on cuda if not given.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    address: Annotated[str | None, typer.Option(help="A running Ray cluster that shares the results folder.")] = None,
    in_process: Annotated[bool, typer.Option(help="Without Ray, in this process: for debuggers.")] = False,
) -> None:
    """Run studies, or go on with them: only what is not in the results folder yet is run."""
    wanted = _wanted(studies, _changes(dataset, recipe, overrides, seeds, keep, name))
    machines = _machines(wanted, data_root=data_root, weights=weights, missing=missing)
    device = _find_device(device, gpus=gpus_per_trial, in_process=in_process, address=address)
    place = {"device": device, "threads": threads_per_trial, "cache": cache.resolve() if cache else None}
    machines = {name: replace(machine, **place) for name, machine in machines.items()}  # type: ignore[arg-type]
    plans = _plans(wanted, machines)
    gpus = (1.0 if device.startswith("cuda") else 0.0) if gpus_per_trial is None else gpus_per_trial
    resources: dict[str, Any] = {"cpus": threads_per_trial, "gpus": gpus, "workers": workers, "total_cpus": num_cpus}
    executor = run_here if in_process else partial(_on_ray, address=address, **resources)
    raise typer.Exit(_launch(plans, machines, results=results.resolve(), executor=executor))


@app.command()
def status(
    studies: Annotated[
        list[str] | None, typer.Argument(help="Studies that were launched; all if none is given.")
    ] = None,
    results: Results = Path("results"),
) -> None:
    """Where launched studies stand: done, running with epoch and loss, failed, left. Reads only."""
    known = names(results)
    if not known and not studies:
        raise InputError(f"{results}: no study was launched there.")
    for name in studies or known:
        summary.show_status(read_plan(results, name), Store(results))


@app.command()
def retry(
    studies: Annotated[list[str], typer.Argument(help="Studies that were launched.")],
    results: Results = Path("results"),
    diverged: Annotated[bool, typer.Option(help="Those that diverged too.")] = False,
) -> None:
    """Forget the trials that failed or whose record is damaged, so that the next run of the study tries them again."""
    store, again = Store(results), ("failed", "diverged") if diverged else ("failed",)
    for name in studies:
        ids = read_plan(results, name).trial_ids()
        found = [trial_id for trial_id in ids if (ending := store.ending(trial_id)) and ending[0] in again]
        for trial_id in found:
            store.forget(trial_id)
        print(f"{name}: {len(found)} forgotten" + ("; run the study again to train them." if found else "."))


def _changes(
    datasets: list[str] | None,
    recipe: str | None,
    overrides: list[str] | None,
    seeds: str | None,
    keep: list[str] | None,
    name: str | None,
) -> Changes:
    kept: Any = keep or ()
    return Changes(datasets=datasets or (), recipe=recipe, overrides=overrides or (), seeds=seeds, keep=kept, name=name)


def _wanted(studies: Sequence[str], changes: Changes) -> list[Study]:
    if changes.name is not None and len(studies) > 1:
        raise InputError("--name renames one study; launch several one by one.")
    return [changes.of(load(name)) for name in studies]


def _machines(wanted: Sequence[Study], *, data_root: Path, weights: Path | None, missing: str) -> dict[str, "Machine"]:
    if missing not in ("error", "skip"):
        raise InputError(f"--missing is error or skip, but got {missing!r}.")
    datasets = {config.data.dataset for study in wanted for config in study.configs().values()}
    roots = {name: find_root(data_root, name, alone=len(datasets) == 1).resolve() for name in sorted(datasets)}
    from taghead.run import Machine

    start = weights.resolve() if weights else None
    return {
        name: Machine(data_root=root, weights=start, missing=missing)  # type: ignore[arg-type]
        for name, root in roots.items()
    }


def _plans(wanted: Sequence[Study], machines: dict[str, "Machine"]) -> list[Plan]:
    from taghead.run import identify

    return plan_all(wanted, identify=lambda config: identify(config, machine=machines[config.data.dataset]))


def _find_device(name: str, *, gpus: float | None, in_process: bool, address: str | None) -> str:
    """The device of the trials; unchecked where only Ray can tell whether there is one, on whichever machine."""
    if ":" in name:
        raise InputError(f"--device {name}: a study's trials are given their card by Ray; use {name.split(':')[0]}.")
    if name == "auto" and gpus:
        name, remote = "cuda", True
    else:
        remote = name != "auto" and address is not None
    if remote and not in_process:
        return name
    from taghead.run import find_device

    return find_device(name)


def _launch(plans: list[Plan], machines: dict[str, "Machine"], *, results: Path, executor: Callable[..., None]) -> int:
    """Writes the plans, runs what is left of them, and tells how it ended; gives the exit status."""
    store = Store(results)
    store.check_writable()
    for one in plans:
        if number := no_longer(one, results):
            print(f"{one.name}: {number} trials of its last launch are no part of this one and stay in the results.")
        write_plan(one, results=results)
    trials = trials_of(plans)
    todo = left(trials, store)
    feed = GridFeed(todo, store=store)
    if todo:
        print(f"{len(trials)} trials, {len(todo)} to run", flush=True)
        stop = Stop()
        try:
            _execute(executor, feed, machines, todo=todo, there=len(trials) - len(todo), results=results, stop=stop)
        except KeyboardInterrupt:
            print(f"stopped with {len(left(trials, store))} of {len(trials)} trials left; the same command goes on.")
            return 128 + stop.number
    return summary.show_end(plans, trials, feed.outcomes, store)


def _execute(
    executor: Callable[..., None],
    feed: GridFeed,
    machines: dict[str, "Machine"],
    *,
    todo: list[Trial],
    there: int,
    results: Path,
    stop: Stop,
) -> None:
    from studies.progress import Progress
    from studies.trial import Work
    from taghead.run import complete, run

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with Progress(todo, there=there) as progress:
            executor(feed, Work(root=results, machines=machines, run=run, complete=complete), watch=progress)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _on_ray(feed: GridFeed, work: Any, *, watch: Any, **resources: Any) -> None:
    from studies.executor import Resources, run_on_ray

    run_on_ray(feed, work, resources=Resources(**resources), watch=watch)


def main() -> None:
    """The entry of the console script."""
    run_app(app)


if __name__ == "__main__":
    main()
