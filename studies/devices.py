"""On which device trials run, and what part of a GPU each takes: ``--device``, ``--gpus-per-trial``."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from studies import estimate, footprint
from studies.feed import trials_of
from studies.launch import left
from studies.plan import Plan
from studies.store import Store
from studies.trial import Trial
from taghead.errors import InputError

if TYPE_CHECKING:
    from taghead.machine import Machine

AUTO = "auto"  # GPUs a trial, measured


def parse_gpus(text: str | None) -> float | str | None:
    """The value of ``--gpus-per-trial``: a number, `AUTO`, or None where it was not given.

    Raises:
        InputError: None of these.
    """
    if text is None or text == AUTO:
        return text
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf or (value > 1 and value % 1):
        raise InputError(f"--gpus-per-trial is auto, a part of one GPU as 0.5, or a whole number, but got {text!r}.")
    return value


def fixed_share(gpus: float | str | None, device: str) -> float:
    """GPUs a trial, where they are not measured.

    Args:
        gpus: As from `parse_gpus`.
        device: As from `choose_device`.
    """
    return gpus if isinstance(gpus, float) else 1.0 if device.startswith("cuda") else 0.0


def measured_share(
    machines: Mapping[str, "Machine"], threads: int, plans: Sequence[Plan], results: Path
) -> Callable[[Trial], float]:
    """A function that says what part of a GPU a trial takes.

    What is left of the plans is measured now, while the cards are free; another trial when it is asked for, and one
    that cannot be measured then, beside those that run, takes a whole card.

    Args:
        machines: Where trials run, by data set.
        threads: CPUs a trial.
        plans: What is launched.
        results: The results folder.

    Raises:
        InputError: A trial of the plans does not fit into a card.
    """
    clips, probe = estimate.count_clips(machines), estimate.measure("cuda", threads)
    known = footprint.measured_shares(left(trials_of(plans), Store(results)), clips=clips, probe=probe)

    def share(trial: Trial) -> float:
        if trial.trial_id not in known:
            try:
                known.update(footprint.measured_shares([trial], clips=clips, probe=probe))
            except InputError:
                known[trial.trial_id] = 1.0
        return known[trial.trial_id]

    return share


def choose_device(name: str, *, gpus: float | str | None, in_process: bool, address: str | None) -> str:
    """The device of the trials; unchecked where only Ray can tell whether there is one, on whichever machine.

    Args:
        name: ``--device``.
        gpus: As from `parse_gpus`.
        in_process: Whether trials run in this process.
        address: Of a running cluster, or None.

    Raises:
        InputError: A numbered card, one that is not to be had here, or ``auto`` where this machine cannot tell.
    """
    if ":" in name:
        raise InputError(f"--device {name}: a study's trials are given their card by Ray; use {name.split(':')[0]}.")
    if name == "auto" and gpus:
        name, remote = "cuda", True
    else:
        remote = name != "auto" and address is not None
    if remote and not in_process:
        return name
    from taghead.machine import find_device

    found = find_device(name)
    if name == "auto" and found == "cpu" and address is not None:
        raise InputError(
            f"--address {address}: there is no GPU here by which --device auto could tell what trials use there; "
            "give --device cuda, or --device cpu."
        )
    return found


def check_limits(*, address: str | None, num_cpus: int | None, num_gpus: int | None) -> None:
    """Refuses limits of this machine's Ray for a cluster, which has its own.

    Args:
        address: Of a running cluster, or None.
        num_cpus: ``--num-cpus``.
        num_gpus: ``--num-gpus``.

    Raises:
        InputError: One of them is given beside an address.
    """
    for option, value in (("--num-cpus", num_cpus), ("--num-gpus", num_gpus)):
        if address is not None and value is not None:
            raise InputError(f"{option} is for a Ray that is started here; limit what runs at {address} by --workers.")
