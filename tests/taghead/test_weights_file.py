"""Files of weights are opened without trust: what is no plain tensors by name is refused in one line."""

import argparse
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from taghead.errors import InputError
from taghead.files import fingerprint
from taghead.weights_file import open_weights


def _state() -> dict[str, Tensor]:
    values = torch.arange(3000.0)
    return {"stem.weight": values.reshape(3, 1000).clone(), "stem.bias": values[:7].clone()}


def _refusal(call: Callable[..., object], path: Path) -> str:
    with pytest.raises(InputError) as caught:
        call(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and "\x1b" not in message
    return message


@pytest.mark.parametrize("odd", ["sparse", "quantized", "meta"])
def test_tensors_without_plain_values_are_refused(odd: str, tmp_path: Path) -> None:
    tensor = torch.ones(9, 3)
    if odd == "quantized":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch deprecates making them
            tensor = torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)
    if odd == "sparse":
        tensor = tensor.to_sparse()
    torch.save({"w": tensor.to("meta") if odd == "meta" else tensor}, tmp_path / "odd.pth")
    assert "w is sparse, quantized or empty of values" in _refusal(open_weights, tmp_path / "odd.pth")


class _Planted:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return open, (str(self.path), "w")


def test_an_object_in_a_file_is_named_and_never_made(tmp_path):
    path, trace = tmp_path / "foreign.pth", tmp_path / "trace"
    torch.save({"state_dict": _state(), "args": argparse.Namespace(lr=1)}, path)
    message = _refusal(open_weights, path)
    assert "argparse.Namespace" in message and "save its plain state dict" in message
    for protocol in (2, pickle.HIGHEST_PROTOCOL):
        path.write_bytes(pickle.dumps(_Planted(trace), protocol=protocol))
        _refusal(open_weights, path)
    torch.save({"state_dict": _Planted(trace)}, path)
    assert "io.open" in _refusal(open_weights, path)
    assert not trace.exists()


def test_a_pickle_that_holds_itself_is_refused(tmp_path):
    loop: dict[str, object] = {}
    loop["state_dict"] = loop
    torch.save(loop, tmp_path / "loop.pth")
    assert "expected tensors by name" in _refusal(open_weights, tmp_path / "loop.pth")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([torch.zeros(2)], "got a value of type list"),
        ({}, "got a value of type dict"),
        ({"weight": torch.zeros(2), "epoch": 3}, "got a value of type int as 'epoch'"),
        ({0: torch.zeros(2)}, "got float32 (2,) as 0"),
    ],
)
def test_what_is_no_state_dict_is_refused(value, words, tmp_path):
    torch.save(value, tmp_path / "odd.pt")
    assert words in _refusal(open_weights, tmp_path / "odd.pt")


@pytest.mark.parametrize("kind", ["torch", "torch before 2020", "safetensors"])
@pytest.mark.parametrize("keep", [0, 1, 8, 9, 20, 100, *(part / 10 for part in range(1, 10)), 0.99, 0.9999])
def test_a_file_that_was_cut_short_is_refused_in_one_line(kind, keep, tmp_path):
    path = tmp_path / ("cut.safetensors" if kind == "safetensors" else "cut.pth")
    if kind == "safetensors":
        save_file(_state(), path)
    else:
        torch.save(_state(), path, _use_new_zipfile_serialization=kind == "torch")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    message = _refusal(open_weights, path)
    assert "cut short" in message if keep else "empty" in message
    assert "fetch it again" in message


def test_other_files_are_refused_in_one_line(tmp_path):
    page = tmp_path / "page.pth"
    page.write_text("<html>404: not found</html>")
    assert "no torch file" in _refusal(open_weights, page)
    assert _refusal(open_weights, tmp_path / "no.pth") == f"{tmp_path / 'no.pth'}: no such file of weights."
    assert "no such file" in _refusal(fingerprint, tmp_path)
    archive = tmp_path / "weights.tar"
    archive.write_bytes(b"x")
    assert "no torch file" in _refusal(open_weights, archive)
    save_file({}, tmp_path / "none.safetensors")
    assert "holds no tensors" in _refusal(open_weights, tmp_path / "none.safetensors")
    save_file({"a": torch.ones(1)}, tmp_path / "odd.safetensors", metadata={"taghead": "[1]"})
    assert "metadata 'taghead' is no JSON object" in _refusal(open_weights, tmp_path / "odd.safetensors")


def test_a_torchscript_archive_is_named(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates making them
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "script.pt")
    assert "TorchScript" in _refusal(open_weights, tmp_path / "script.pt")


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.pyth", "w.ckpt", "w.pth.tar", "weights"])
def test_a_file_is_what_its_content_says(kind: str, name: str, tmp_path: Path) -> None:
    save_file(_state(), tmp_path / name) if kind == "safetensors" else torch.save(_state(), tmp_path / name)
    found = open_weights(tmp_path / name).tensors
    assert found.keys() == _state().keys() and all(torch.equal(value, _state()[key]) for key, value in found.items())
