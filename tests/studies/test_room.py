from typing import Any

import pytest

from studies.room import Resources, fitting_nodes, most_workers, num_sharing
from taghead.errors import InputError


def node(name: str, *, cpus: float, gpus: float = 0, alive: bool = True) -> dict[str, Any]:
    resources = {"CPU": float(cpus)} | ({"GPU": float(gpus)} if gpus else {})
    return {"NodeID": name, "Alive": alive, "Resources": resources}


SMALL, LARGE, DEAD = node("small", cpus=2), node("large", cpus=16, gpus=4), node("dead", cpus=64, gpus=8, alive=False)


@pytest.mark.parametrize(
    ("resources", "fitting"),
    [
        (Resources(), ["small", "large"]),
        (Resources(cpus=4), ["large"]),
        (Resources(gpus=0.5), ["large"]),
        (Resources(gpus=lambda trial: 0.5), ["large"]),
    ],
)
def test_the_machines_that_have_what_a_trial_takes(resources: Resources, fitting: list[str]) -> None:
    assert fitting_nodes([SMALL, LARGE, DEAD], resources) == fitting


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        (Resources(cpus=32), "asks for 32 CPU, but no machine has more than 16; lower --threads-per-trial."),
        (Resources(gpus=5), "asks for 5 GPU, but no machine has more than 4; lower --gpus-per-trial."),
        (Resources(cpus=16, gpus=1), "asks for 16 CPU and 1 GPU, but no machine has both"),
    ],
)
def test_what_no_machine_has_is_refused(resources: Resources, message: str) -> None:
    nodes = [LARGE, DEAD] if resources.cpus != 16 else [node("a", cpus=16), node("b", cpus=8, gpus=1)]
    with pytest.raises(InputError, match=message):
        fitting_nodes(nodes, resources)


@pytest.mark.parametrize(
    ("resources", "most"),
    [
        (Resources(), 18),
        (Resources(cpus=3), 5),
        (Resources(gpus=1), 4),
        (Resources(gpus=2), 2),
        (Resources(gpus=0.3), 12),
        (Resources(cpus=8, gpus=0.25), 2),
        (Resources(workers=3), 3),
        (Resources(gpus=1, workers=9), 4),
        (Resources(gpus=lambda trial: 0.1), None),
        (Resources(gpus=lambda trial: 0.1, workers=7), 7),
    ],
)
def test_there_are_as_many_workers_as_there_is_room_for(resources: Resources, most: int | None) -> None:
    assert most_workers([SMALL, LARGE, DEAD], resources) == most


@pytest.mark.parametrize(("gpus", "number"), [(1 / 3, 3), (0.1, 10), (0.5, 2), (0.7, 1), (1, 1)])
def test_a_part_that_goes_into_a_card_whole_does_so_in_spite_of_rounding(gpus: float, number: int) -> None:
    assert num_sharing(1, gpus) == number
