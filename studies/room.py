"""What a trial takes, and which machines have room for it: arithmetic over Ray's list of nodes, without Ray."""

import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from studies.trial import Trial
from taghead.errors import InputError

Node = Mapping[str, Any]  # one of `ray.nodes()`


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a trial takes, and of what.

    Attributes:
        cpus: CPUs a trial.
        gpus: GPUs a trial; a fraction lets several share one. Or a function that says for each trial what part of one
            GPU it takes.
        workers: How many trials run at once at the most; None: as many as there is room for.
        total_cpus: CPUs that a Ray started here may use; None: ``workers x cpus``, or all.
        total_gpus: GPUs that a Ray started here may hand out; None: those that it finds.
        address: A running cluster's address; None starts one on this machine and stops it at the end.
    """

    cpus: int = 1
    gpus: float | Callable[[Trial], float] = 0.0
    workers: int | None = None
    total_cpus: int | None = None
    total_gpus: int | None = None
    address: str | None = None

    @property
    def most_gpus(self) -> float:
        """The most that one trial takes."""
        return 1.0 if callable(self.gpus) else self.gpus

    def __str__(self) -> str:
        return f"{self.cpus} CPU and {self.most_gpus:g} GPU"


def fitting_nodes(nodes: Iterable[Node], resources: Resources) -> list[str]:
    """The ids of the machines that have what one trial takes.

    Args:
        nodes: All that Ray knows.
        resources: What a trial takes.

    Raises:
        InputError: There is none.
    """
    alive = [node for node in nodes if node["Alive"]]
    wanted = {"CPU": resources.cpus, "GPU": resources.most_gpus}
    for what, asked in wanted.items():
        most = max((node["Resources"].get(what, 0) for node in alive), default=0)
        if asked > most:
            remedy = "--threads-per-trial" if what == "CPU" else "--gpus-per-trial"
            raise InputError(
                f"a trial asks for {asked:g} {what}, but no machine has more than {most:g}; lower {remedy}."
            )
    fitting = [node for node in alive if all(node["Resources"].get(what, 0) >= asked for what, asked in wanted.items())]
    if not fitting:
        raise InputError(
            f"a trial asks for {resources}, but no machine has both; lower --threads-per-trial or --gpus-per-trial."
        )
    return [node["NodeID"] for node in fitting]


def num_sharing(cards: float, gpus: float) -> int:
    """How many trials find room on some GPUs at once.

    Args:
        cards: Their number.
        gpus: What a trial takes, above 0: a part of one, or whole ones.
    """
    return int(cards) * int(1 / gpus + 1e-6) if gpus < 1 else int(cards / gpus)


def most_workers(nodes: Iterable[Node], resources: Resources) -> int | None:
    """How many workers there may be: no more than there is room for, where all take alike.

    Args:
        nodes: All that Ray knows.
        resources: What a trial takes.
    """
    gpus = resources.gpus
    if callable(gpus):
        return resources.workers
    room = 0
    for node in (node["Resources"] for node in nodes if node["Alive"]):
        of_cpus, has = int(node.get("CPU", 0) / resources.cpus), node.get("GPU", 0)
        room += min(of_cpus, num_sharing(has, gpus)) if gpus else of_cpus
    return room if resources.workers is None else min(room, resources.workers)


def check_address(address: str) -> None:
    """Refuses an address at which nothing answers: Ray itself tries for many minutes before it gives up.

    Args:
        address: HOST:PORT, or ``auto``, which Ray looks up on this machine.

    Raises:
        InputError: No such address, or nothing answers there.
    """
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if not colon or "/" in host:  # ray:// would run the driver elsewhere, where the results folder may not be
        raise InputError(f"--address {address}: it is HOST:PORT, or auto.")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise InputError(f"--address {address}: nothing answers there ({error}); it is HOST:PORT, or auto.") from None
