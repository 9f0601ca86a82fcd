import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from taghead.checkpoint import TrainState, load_state, save_state


def state() -> TrainState:
    """That of a small model after one step of Adam."""
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return TrainState(
        trial="a trial", threads=2, history=[{"epoch": 1, "loss": 0.5}], model=model.state_dict(),
        optimizer=optimizer.state_dict(), seconds=1.5, unreadable={"a clip": "no frame"},
    )  # fmt: skip


def test_a_state_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    saved = state()
    save_state(saved, tmp_path / "checkpoint.pt")
    found = load_state(tmp_path / "checkpoint.pt")
    assert found is not None
    assert repr(found) == repr(saved)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_saving_copies_no_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved, given = state(), []
    save = torch.save

    def noting(values: dict[str, Any], file: Any) -> None:
        given.append(values)
        save(values, file)

    monkeypatch.setattr(torch, "save", noting)
    save_state(saved, tmp_path / "checkpoint.pt")
    assert saved.model is not None
    assert saved.optimizer is not None
    assert given[0]["model"]["weight"].data_ptr() == saved.model["weight"].data_ptr()
    moments = [values["optimizer"]["state"][0]["exp_avg"] for values in (given[0], vars(saved))]
    assert moments[0].data_ptr() == moments[1].data_ptr()


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", b"\x80\x04K."])
def test_whatever_stands_in_a_checkpoint_a_damaged_one_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)
    assert load_state(tmp_path / "checkpoint.pt") is None


def test_a_checkpoint_cut_short_anywhere_is_a_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_state(state(), path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        assert load_state(path) is None


def test_where_there_is_no_checkpoint_there_is_no_state(tmp_path: Path) -> None:
    assert load_state(tmp_path / "checkpoint.pt") is None


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_checkpoint_that_the_disk_does_not_give_is_no_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def broken(self: Path) -> bytes:
        raise OSError(number, os.strerror(number))

    save_state(state(), tmp_path / "checkpoint.pt")
    monkeypatch.setattr(Path, "read_bytes", broken)
    with pytest.raises(OSError, match=os.strerror(number)):
        load_state(tmp_path / "checkpoint.pt")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes")]
)
def test_a_checkpoint_for_which_there_is_no_memory_is_no_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def starved(*_: object, **__: object) -> None:
        raise error

    save_state(state(), tmp_path / "checkpoint.pt")
    monkeypatch.setattr(torch, "load", starved)
    with pytest.raises(type(error)):
        load_state(tmp_path / "checkpoint.pt")


def test_a_changed_bit_of_a_tensor_is_damage(tmp_path: Path) -> None:
    path, saved = tmp_path / "checkpoint.pt", state()
    save_state(saved, path)
    assert saved.model is not None
    whole, weight = path.read_bytes(), saved.model["weight"].numpy().tobytes()
    place = whole.index(weight)
    for bit in range(0, 8 * len(weight), 7):
        changed = bytearray(whole)
        changed[place + bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        assert load_state(path) is None, bit
