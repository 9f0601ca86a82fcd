"""From what a user asks for to plans: which study, on which data, with what changed, and what is left to do of it."""

import runpy
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

from studies import catalog
from studies.plan import Identity, Plan, make_plan, read_plan
from studies.store import Need, Store
from studies.study import Search, Study
from studies.trial import Trial
from taghead.config import Config, parse_overrides
from taghead.errors import InputError, in_file, nearest
from taghead.recipes import recipe
from taghead.record import Keep

AnyStudy = TypeVar("AnyStudy", Study, Search)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What a command line changes in the studies and searches that it names.

    Attributes:
        datasets: Data sets in place of a study's own; empty for its own.
        recipe: The recipe of the bases; None for the study's own bases, or a data set's usual recipe.
        overrides: ``key=value`` texts for every row's base; a search no longer searches these keys.
        seeds: ``3`` for 0, 1, 2, or a list as ``0,4``; None for the study's own.
        keep: What to keep besides what the study asks for.
        name: Another name, to keep a variant's plan apart.
        searching: What is changed in searches alone, by the names of `Search`; None for what is not.
    """

    datasets: Sequence[str] = ()
    recipe: str | None = None
    overrides: Sequence[str] = ()
    seeds: str | None = None
    keep: Sequence[Keep] = ()
    name: str | None = None
    searching: Mapping[str, Any] = field(default_factory=dict)

    def of(self, study: AnyStudy) -> AnyStudy:
        """The changed study or search.

        Raises:
            InputError: A data set, recipe, key, value, seed or kept thing that is not known or does not fit.
        """
        searching = {name: value for name, value in self.searching.items() if value is not None}
        if isinstance(study, Search):
            study = replace(study, **_searching(study, searching))
        elif searching:
            option = min(searching).replace("_", "-").removeprefix("num-")
            raise InputError(f"--{option} is for searches; {study.name} is a study of fixed rows.")
        if self.datasets or self.recipe:
            columns = self.datasets or [base.data.dataset for base in study.datasets.values()]
            study = replace(study, datasets={name: recipe(name, name=self.recipe) for name in columns})
        for name in self.keep:
            if name not in get_args(Keep):
                raise InputError(f"--keep {name}: nothing of that name{nearest(name, get_args(Keep))}")
        study = replace(study, keep=tuple(dict.fromkeys((*study.keep, *self.keep))))
        if self.seeds is not None:
            study = replace(study, seeds=_seeds(self.seeds))
        if self.name is not None:
            study = replace(study, name=self.name)
        return study.override(parse_overrides(self.overrides))


def _searching(search: Search, changes: dict[str, Any]) -> dict[str, Any]:
    """Another sampler or pruner does not take the options of the one before."""
    if changes.get("pruner") == "none":
        changes["pruner"] = None
    for name in ("sampler", "pruner"):
        if name in changes and changes[name] != getattr(search, name):
            changes[f"{name}_options"] = {}
    return changes


def load(name: str) -> Study | Search:
    """A study by its name in the catalog, or a user's own by ``file.py:NAME``.

    Raises:
        InputError: No such study or file, an error while the file is run, or it holds no study of that name.
    """
    path, colon, variable = name.rpartition(":")
    if not colon:
        return catalog.find(name)
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; a study of your own is given as my_study.py:STUDY.")
    there = {key: value for key, value in _variables(path).items() if isinstance(value, Study | Search)}
    if variable not in there:
        raise InputError(f"{path}: no study {variable!r}{nearest(variable, there) if there else '; it holds none.'}")
    return there[variable]


def _variables(path: str) -> dict[str, Any]:
    """Runs a user's file as ``python file.py`` does: modules beside it can be imported."""
    before = sys.path[:]
    sys.path.insert(0, str(Path(path).resolve().parent))
    try:
        return runpy.run_path(path)
    except Exception as error:
        raise InputError(in_file(error, path)) from None
    finally:
        sys.path[:] = before


def find_root(data_root: Path, dataset: str, *, alone: bool) -> Path:
    """The folder of one data set: a sub-folder of its name, or else the folder itself if no other set is asked for.

    Raises:
        InputError: There is no such folder.
    """
    if not data_root.is_dir():
        raise InputError(f"no such data root: {data_root}; give the folder that holds the clips with --data-root.")
    if (data_root / dataset).is_dir():
        return data_root / dataset
    if not alone:
        raise InputError(f"{data_root}: no sub-folder {dataset}; several data sets need one each.")
    return data_root


def remembered(identify: Callable[[Config], Identity]) -> Callable[[Config], Identity]:
    """The same function, called once for each data set and backbone, since it may read long lists.

    Args:
        identify: Gives the fingerprints of a config's clips and weights.
    """
    known: dict[tuple[Any, ...], Identity] = {}

    def once(config: Config) -> Identity:
        model, data = config.model, config.data
        key: tuple[Any, ...] = (data.dataset, data.holdout, config.train.selection, model.backbone, model.pretrained)
        if model.backbone_source:  # it is shown a clip
            key += (model.backbone_source, data.num_frames, data.crop_size)
        if key not in known:
            known[key] = identify(config)
        return known[key]

    return once


def plan_all(wanted: Sequence[Study], *, identify: Callable[[Config], Identity]) -> list[Plan]:
    """Works several studies out.

    Args:
        wanted: The studies.
        identify: As for `make_plan`; see `remembered`.

    Raises:
        InputError: Two studies of one name.
    """
    check_names(wanted)
    identify = remembered(identify)
    return [make_plan(study, identify=identify) for study in wanted]


def check_names(wanted: Sequence[Study | Search]) -> None:
    """Refuses two studies of one name.

    Raises:
        InputError: There are two.
    """
    if len({study.name for study in wanted}) < len(wanted):
        raise InputError("two studies of one name at once would overwrite each other's plan; give each its own.")


def left(trials: Iterable[Trial], store: Store) -> list[Trial]:
    """The trials that have something left to do."""
    return [trial for trial in trials if _need(trial, store) != "nothing"]


def count(trials: Iterable[Trial], store: Store) -> Counter[str]:
    """How many trials are in which state: a final status, ``running``, ``begun``, ``new``, ``evaluate``, ``again``."""
    states: Counter[str] = Counter()
    for trial in trials:
        need = _need(trial, store)
        if store.is_running(trial.trial_id):
            states["running"] += 1
        elif need == "train":
            states["begun" if (store.running / trial.trial_id).exists() else "new"] += 1
        elif need == "nothing":
            ending = store.ending(trial.trial_id)
            states[ending[0] if ending else "new"] += 1
        else:
            states[need] += 1
    return states


def no_longer(plan: Plan, results: Path) -> int:
    """How many trials of the study's earlier launch are no part of this one; they stay in the store."""
    try:
        before = read_plan(results, plan.name)
    except InputError:  # none, or one that cannot be read, which this launch mends
        return 0
    return len(set(before.trial_ids()) - set(plan.trial_ids()))


def _need(trial: Trial, store: Store) -> Need:
    return store.need(trial.trial_id, trial.keep, pruned_counts=trial.pruned_counts)


def _seeds(text: str) -> tuple[int, ...]:
    try:
        parts = text.removesuffix(",").split(",")
        seeds = tuple(int(part) for part in parts) if "," in text else tuple(range(int(text)))
    except ValueError:
        seeds = ()
    if not seeds:
        raise InputError(f"--seeds takes a number of seeds, as 3, or a list, as 0,4 or 4,; got {text!r}.")
    return seeds
