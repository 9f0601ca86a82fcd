from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakes
import pytest

from studies import estimate, footprint
from studies.devices import choose_device, fixed_share, measured_share, parse_gpus
from studies.trial import Trial
from taghead import machine
from taghead.errors import InputError


@pytest.mark.parametrize(("text", "value"), [(None, None), ("auto", "auto"), ("0.5", 0.5), ("2", 2.0), ("0", 0.0)])
def test_gpus_are_a_part_or_whole_numbers(text: str | None, value: float | str | None) -> None:
    assert parse_gpus(text) == value


@pytest.mark.parametrize("text", ["many", "1.5", "-1", "inf", "nan", ""])
def test_other_gpus_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--gpus-per-trial is auto, a part"):
        parse_gpus(text)


@pytest.mark.parametrize(
    ("gpus", "device", "share"), [(None, "cpu", 0.0), (None, "cuda", 1.0), (0.5, "cuda", 0.5), (0.0, "cuda", 0.0)]
)
def test_a_trial_takes_one_gpu_where_nothing_else_is_said(gpus: float | None, device: str, share: float) -> None:
    assert fixed_share(gpus, device) == share


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets what this machine has."""
    return lambda device: monkeypatch.setattr(machine, "find_device", lambda name: device)


def test_auto_is_this_machines_and_is_refused_where_that_says_nothing_of_a_cluster(found: Any) -> None:
    options: dict[str, Any] = {"gpus": None, "in_process": False}
    found("cuda")
    assert choose_device("auto", address="a:1", **options) == "cuda"
    found("cpu")
    assert choose_device("auto", address=None, **options) == "cpu"
    assert choose_device("cuda", address="a:1", **options) == "cuda"  # only Ray can tell
    with pytest.raises(InputError, match="no GPU here by which --device auto could tell"):
        choose_device("auto", address="a:1", **options)


def test_what_cannot_be_measured_beside_running_trials_takes_a_whole_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(trials: list[Trial], **_: Any) -> dict[str, float]:
        if trials:
            raise InputError("does not fit into what is free")
        return {}

    monkeypatch.setattr(estimate, "count_clips", lambda machines: None)
    monkeypatch.setattr(estimate, "measure", lambda device, threads: None)
    monkeypatch.setattr(footprint, "measured_shares", measured)
    assert measured_share({}, 1, [], tmp_path)(fakes.trial()) == 1.0
