"""The command line of studies: ``taghead-studies list | plan | run | status | retry | dashboard``.

Nothing heavy is loaded before a command needs it: ``list`` and ``--help`` load neither torch nor Ray.
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studies import candidates, catalog, estimate, summary, winners
from studies.devices import AUTO, check_limits, choose_device, fixed_share, measured_share, parse_gpus
from studies.feed import Feed, run_here, trials_of
from studies.launch import Changes, check_names, find_root, left, load, plan_all, remembered
from studies.plan import Identity, names, read_plan
from studies.store import Store
from studies.study import Search, Study
from studies.track import check_tracker
from studies.trial import Trial
from taghead.command import run_app
from taghead.config import Config
from taghead.errors import InputError

if TYPE_CHECKING:
    from taghead.machine import Machine

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
Cache = Annotated[Path | None, typer.Option(help="Folder for decoded frames and stored tokens.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Trials at once at the most; all that fit if not given.")]
NumCpus = Annotated[int | None, typer.Option(min=1, help="CPUs that Ray may use; all if not given.")]
NumGpus = Annotated[int | None, typer.Option(min=0, help="GPUs that Ray may use; all if not given.")]
Threads = Annotated[int, typer.Option(min=1, help="CPUs, and torch's threads, of a trial.")]
Gpus = Annotated[
    str | None,
    typer.Option(help="0.5 lets two trials share a GPU; auto measures what fits; 1 on cuda if not given."),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda where torch sees a GPU on this machine, else cpu.")]
Address = Annotated[
    str | None,
    typer.Option(help="A running Ray cluster, HOST:PORT or auto; machines without the results folder deliver trials."),
]


NumTrials = Annotated[int | None, typer.Option("--trials", min=1, help="Of searches: how many different candidates.")]
Sampler = Annotated[str | None, typer.Option(help="Of searches: tpe, random, grid or nsga2.")]
Pruner = Annotated[str | None, typer.Option(help="Of searches: median, successive_halving or none.")]
FinalSeeds = Annotated[int | None, typer.Option(min=1, help="Of searches: fresh seeds for base and winner.")]
Ahead = Annotated[
    int | None, typer.Option(min=1, help="Of searches: candidates at once, so many without each other's results.")
]


@app.command("list")
def list_studies() -> None:
    """The studies of the paper and ours, and the searches."""
    for study in catalog.STUDIES.values():
        _list(study, f"{len(study.rows)} rows")
    if "backbones" not in catalog.STUDIES:
        print(f"{'backbones':13} Table 3, which is not there yet: it needs {', '.join(catalog.TABLE_3.values())}.")
    for search in catalog.SEARCHES.values():
        _list(search, f"{search.num_trials} of {len(search.space)} keys")


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
    cache: Cache = None,
    workers: Workers = None,
    num_cpus: NumCpus = None,
    threads_per_trial: Threads = 1,
    gpus_per_trial: Gpus = None,
    num_gpus: NumGpus = None,
    device: Device = "auto",
    address: Address = None,
    num_trials: NumTrials = None,
    sampler: Sampler = None,
    pruner: Pruner = None,
    final_seeds: FinalSeeds = None,
    ahead: Ahead = None,
) -> None:
    """What a launch would do: its trials, which of them are done or new, how long it takes, the disk. Runs none."""
    searching = _searching(num_trials, sampler, pruner, final_seeds, ahead)
    changes = Changes(**_plain(dataset, recipe, overrides, seeds, keep, name), searching=searching)
    grids, searches = _wanted(studies, changes)
    machines = _machines([*grids, *searches], data_root=data_root, weights=weights, missing=missing)
    identify = _identify(machines)
    store, plans = Store(results), plan_all(grids, identify=identify)
    for one in plans:
        summary.show_plan(one, trials_of([one]), store)
    if len(plans) > 1:
        print(f"together: {len(left(trials_of(plans), store))} trials to run")
    expected: list[Trial] = []
    if searches:
        from studies.sampling import check_options
    for search in searches:
        check_options(search)
        state = candidates.resume(search, identity=identify(search.base), results=results)
        summary.show_search_plan(search, state, store)
        expected += winners.expected_trials(search, state, identity=identify(search.base), store=store)
    check_limits(address=address, num_cpus=num_cpus, num_gpus=num_gpus)
    gpus = parse_gpus(gpus_per_trial)
    device = choose_device(device, gpus=gpus, in_process=False, address=address)
    todo = left([*trials_of(plans), *expected], store)
    slots = estimate.slots(
        workers=workers, threads=threads_per_trial, total_cpus=num_cpus,
        gpus=0.0 if gpus == AUTO else fixed_share(gpus, device), num_gpus=num_gpus, address=address,
    )  # fmt: skip
    summary.show_costs(
        todo, store, machines, device=device, threads=threads_per_trial, slots=slots, cache=cache, num_gpus=num_gpus,
        auto_gpus=gpus == AUTO,
    )  # fmt: skip


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
    cache: Cache = None,
    workers: Workers = None,
    num_cpus: NumCpus = None,
    threads_per_trial: Threads = 1,
    gpus_per_trial: Gpus = None,
    num_gpus: NumGpus = None,
    device: Device = "auto",
    address: Address = None,
    in_process: Annotated[bool, typer.Option(help="Without Ray, in this process: for debuggers.")] = False,
    trial_timeout: Annotated[
        float | None,
        typer.Option(min=1, max=1e8, help="Seconds that one attempt at a trial may take; then it has failed."),
    ] = None,
    track: Annotated[
        str | None, typer.Option(help="Also tell tensorboard, wandb or mlflow; files go to RESULTS/track.")
    ] = None,
    num_trials: NumTrials = None,
    sampler: Sampler = None,
    pruner: Pruner = None,
    final_seeds: FinalSeeds = None,
    ahead: Ahead = None,
    dashboard: Annotated[bool, typer.Option(help="Of searches: optuna-dashboard beside the run.")] = False,
) -> None:
    """Run studies and searches, or go on with them: only what is not in the results folder yet is run."""
    searching = _searching(num_trials, sampler, pruner, final_seeds, ahead)
    check_tracker(track)
    changes = Changes(**_plain(dataset, recipe, overrides, seeds, keep, name), searching=searching)
    grids, searches = _wanted(studies, changes)
    machines = _machines([*grids, *searches], data_root=data_root, weights=weights, missing=missing)
    check_limits(address=address, num_cpus=num_cpus, num_gpus=num_gpus)
    gpus = parse_gpus(gpus_per_trial)
    if in_process:
        given = {"trial_timeout": trial_timeout, "track": track, "workers": workers, "address": address}
        _check_in_process(**given, num_cpus=num_cpus, num_gpus=num_gpus)
    if cache is not None and cache.exists() and not cache.is_dir():
        raise InputError(f"--cache {cache}: not a folder.")
    device = choose_device(device, gpus=gpus, in_process=in_process, address=address)
    place = {"device": device, "threads": threads_per_trial, "cache": cache.resolve() if cache else None}
    machines = {name: replace(machine, **place) for name, machine in machines.items()}  # type: ignore[arg-type]
    identify = _identify(machines)
    plans = plan_all(grids, identify=identify)
    resources: dict[str, Any] = {"cpus": threads_per_trial, "workers": workers, "total_cpus": num_cpus,
                                 "total_gpus": num_gpus, "address": address}  # fmt: skip
    if gpus == AUTO:
        resources["gpus"] = measured_share(machines, threads_per_trial, plans, results)
    else:
        resources["gpus"] = fixed_share(gpus, device)
    executor = run_here if in_process else partial(_on_ray, track=track, **resources)
    Store(results).check_writable()
    from studies.drive import Driver

    driver = Driver(results=results.resolve(), machines=machines, identify=identify, executor=executor,
                    timeout=trial_timeout)  # fmt: skip
    with _dashboard(searches, results) if dashboard else nullcontext():
        raise typer.Exit(driver.run(plans, searches))


@app.command()
def status(
    studies: Annotated[
        list[str] | None, typer.Argument(help="Studies that were launched; all if none is given.")
    ] = None,
    results: Results = Path("results"),
) -> None:
    """Where launched studies stand: done, running with epoch and loss, failed, left. Reads only."""
    known, searched = names(results), candidates.searches(results)
    if not known and not searched and not studies:
        raise InputError(f"{results}: no study was launched there.")
    for name in studies or sorted({*known, *searched}):
        if name in searched:
            summary.show_search_status(candidates.read_search(results, name), Store(results))
        if name in known or name not in searched:
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
        searched = candidates.read_search(results, name) if name in candidates.searches(results) else None
        ids = set(searched.trial_ids()) if searched else set()
        if name in names(results) or not searched:
            ids |= set(read_plan(results, name).trial_ids())
        broken = winners.damaged(searched, store) if searched else set()
        found = [trial_id for trial_id in sorted(ids) if (ending := store.ending(trial_id)) and ending[0] in again]
        found = sorted({*found, *broken})
        for trial_id in found:
            store.forget(trial_id)
        if searched:
            candidates.write_search(candidates.taken_up(searched), results=results)
        print(f"{name}: {len(found)} forgotten" + ("; run the study again to train them." if found else "."))


@app.command()
def dashboard(
    search: Annotated[str, typer.Argument(help="A search that was launched.")],
    results: Results = Path("results"),
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, help="Where to listen.")] = 8080,
) -> None:
    """Open optuna-dashboard on a search, also one that runs in another terminal. Reads only."""
    state = candidates.read_search(results, search)
    from studies.dashboard import serve

    serve(state.name, results=results, host=host, port=port)


def _list(study: Study | Search, size: str) -> None:
    print(f"{study.name:13} {size:13} on {', '.join(study.datasets):23} {study.title}")
    print(textwrap.fill(study.text, 110, initial_indent=" " * 14, subsequent_indent=" " * 14))


def _plain(
    datasets: list[str] | None,
    recipe: str | None,
    overrides: list[str] | None,
    seeds: str | None,
    keep: list[str] | None,
    name: str | None,
) -> dict[str, Any]:
    lists = {"datasets": datasets or (), "overrides": overrides or (), "keep": keep or ()}
    return {**lists, "recipe": recipe, "seeds": seeds, "name": name}


def _searching(
    num_trials: int | None, sampler: str | None, pruner: str | None, final_seeds: int | None, ahead: int | None
) -> dict[str, Any]:
    counts = {"num_trials": num_trials, "final_seeds": final_seeds, "ahead": ahead}
    return {**counts, "sampler": sampler, "pruner": pruner}


def _wanted(studies: Sequence[str], changes: Changes) -> tuple[list[Study], list[Search]]:
    if changes.name is not None and len(studies) > 1:
        raise InputError("--name renames one study; launch several one by one.")
    loaded = [load(name) for name in studies]
    grids = [changes.of(study) for study in loaded if isinstance(study, Study)]
    searches = [changes.of(study) for study in loaded if isinstance(study, Search)]
    check_names([*grids, *searches])
    return grids, searches


def _machines(
    wanted: Sequence[Study | Search], *, data_root: Path, weights: Path | None, missing: str
) -> dict[str, "Machine"]:
    if missing not in ("error", "skip"):
        raise InputError(f"--missing is error or skip, but got {missing!r}.")
    datasets = {base.data.dataset for study in wanted for base in study.datasets.values()}
    roots = {name: find_root(data_root, name, alone=len(datasets) == 1).resolve() for name in sorted(datasets)}
    from taghead.machine import Machine

    if weights is not None and not weights.exists():
        raise InputError(f"--weights {weights}: no such file or folder.")
    start = weights.resolve() if weights else None
    return {
        name: Machine(data_root=root, weights=start, missing=missing)  # type: ignore[arg-type]
        for name, root in roots.items()
    }


def _identify(machines: Mapping[str, "Machine"]) -> Callable[[Config], Identity]:
    from taghead.identity import identify

    return remembered(lambda config: identify(config, machine=machines[config.data.dataset]))


def _check_in_process(**given: Any) -> None:
    for name, value in given.items():
        if value is not None:
            raise InputError(f"--{name.replace('_', '-')} needs workers; leave out --in-process.")


def _dashboard(searches: Sequence[Search], results: Path) -> AbstractContextManager[None]:
    if len(searches) != 1:
        raise InputError(f"--dashboard shows one search at a time, but got {len(searches)}.")
    from studies.dashboard import beside

    return beside(searches[0].name, results=results)


def _on_ray(
    feed: Feed, work: Any, *, watch: Any, stopped: Callable[[], bool], track: str | None, **resources: Any
) -> None:
    from studies.executor import run_on_ray
    from studies.room import Resources

    run_on_ray(feed, work, resources=Resources(**resources), watch=watch, stopped=stopped, track=track)


def main() -> None:
    """The entry of the console script."""
    run_app(app)


if __name__ == "__main__":
    main()
