"""Weights files: every layout that is met in public, and every way in which one can be wrong."""

import argparse
import hashlib
import pickle
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from taghead.backbones.r2plus1d import R2Plus1D, r2plus1d_narrow
from taghead.errors import InputError
from taghead.weights import fingerprint, load_backbone, load_weights, open_weights, save_weights

State = dict[str, Tensor]


def _network(*, seed: int, width: int = 6) -> R2Plus1D:
    torch.manual_seed(seed)
    network = r2plus1d_narrow(stem=(2, 4), widths=(4, width), depths=(1, 1), strides=((1, 1), (2, 2)))
    network.train()(torch.randn(2, 3, 4, 8, 8))  # moves the running statistics
    return network


def _public(network: nn.Module) -> State:
    return network.state_dict() | {"fc.weight": torch.zeros(5, 6), "fc.bias": torch.zeros(5)}


def _prefixed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def _same(network: nn.Module, state: State) -> bool:
    return all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def _refusal(call: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(InputError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message and "\x1b" not in message
    return message


LAYOUTS = {
    "bare": (lambda state: state, "torch file"),
    "ordered": (OrderedDict, "torch file"),
    "state_dict": (lambda state: {"state_dict": state, "epoch": 3}, "torch file, in state_dict"),
    "model_state": (lambda state: {"model_state": state}, "torch file, in model_state"),
    "twice": (
        lambda state: {"model_state_dict": {"state_dict": state}},
        "torch file, in model_state_dict, in state_dict",
    ),
    "module": (lambda state: _prefixed(state, "module."), "torch file, without module."),
    "model": (lambda state: _prefixed(state, "model."), "torch file, without model."),
    "model.module": (lambda state: _prefixed(state, "model.module."), "torch file, without model., without module."),
    "backbone": (lambda state: _prefixed(state, "backbone."), "torch file, without backbone."),
    "parallel": (
        lambda state: {"state_dict": _prefixed(state, "module.backbone.")},
        "torch file, in state_dict, without module., without backbone.",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_public_layout_gives_the_same_network(layout, tmp_path):
    wrap, words = LAYOUTS[layout]
    source, target = _network(seed=0), _network(seed=1)
    torch.save(wrap(_public(source)), tmp_path / "public.pth")
    report = load_backbone(target, tmp_path / "public.pth")
    assert _same(target, source.state_dict())
    assert report.layout == words
    assert set(report.loaded) == set(source.state_dict())
    assert [name.rpartition("fc.")[2] for name in report.skipped] == ["weight", "bias"]
    assert report.missing == ()


@pytest.mark.parametrize("suffix", ["pt", "pth", "pyth", "safetensors"])
def test_every_suffix_is_read(suffix, tmp_path):
    source, target = _network(seed=0), _network(seed=1)
    path = tmp_path / f"public.{suffix}"
    save_file(_public(source), path) if suffix == "safetensors" else torch.save(_public(source), path)
    load_backbone(target, path)
    assert _same(target, source.state_dict())


def test_torch_files_from_before_2020_are_read(tmp_path):
    source, target = _network(seed=0), _network(seed=1)
    torch.save(_public(source), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    load_backbone(target, tmp_path / "old.pth")
    assert _same(target, source.state_dict())


def test_a_head_beside_the_backbone_is_left_out_and_said_so(tmp_path):
    source, target = _network(seed=0), _network(seed=1)
    state = _prefixed(source.state_dict(), "backbone.") | {
        "head.0.weight": torch.zeros(3),
        "cls_head.bias": torch.zeros(1),
    }
    torch.save(state, tmp_path / "whole.pt")
    report = load_backbone(target, tmp_path / "whole.pt")
    assert _same(target, source.state_dict())
    assert report.skipped == ("head.0.weight", "cls_head.bias")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_cast(dtype, tmp_path):
    source, target = _network(seed=0), _network(seed=1)
    state = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in _public(source).items()
    }
    torch.save(state, tmp_path / "half.pth")
    load_backbone(target, tmp_path / "half.pth")
    assert _same(
        target, {name: tensor.to(source.state_dict().get(name, tensor).dtype) for name, tensor in state.items()}
    )
    assert {parameter.dtype for parameter in target.parameters()} == {torch.float32}


def test_counters_of_batches_may_be_missing(tmp_path):
    source, target = _network(seed=0), _network(seed=1)
    kept = {name: tensor for name, tensor in source.state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save(kept, tmp_path / "old.pth")
    report = load_backbone(target, tmp_path / "old.pth")
    assert len(report.missing) == len(target.state_dict()) - len(kept) > 0
    assert all(torch.equal(target.state_dict()[name], tensor) for name, tensor in kept.items())


def test_the_report_is_one_line_that_says_what_became_of_the_file(tmp_path):
    source = _network(seed=0)
    state = {name: tensor for name, tensor in _public(source).items() if not name.endswith("num_batches_tracked")}
    torch.save({"model_state": state}, tmp_path / "k400.pyth")
    loaded, counters = len(state) - 2, len(_public(source)) - len(state)
    assert str(load_backbone(_network(seed=1), tmp_path / "k400.pyth")) == (
        f"k400.pyth (torch file, in model_state): {loaded} tensors loaded; "
        f"left out: fc.weight, fc.bias; not in the file: {counters} counters of batches."
    )


FAULTS = {
    "shape": (
        lambda state: state | {"stem.0.weight": torch.zeros(9, 3)},
        "stem.0.weight is float32 (9, 3), not float32",
    ),
    "kind": (
        lambda state: state | {"stem.1.bias": torch.zeros(2).int()},
        "stem.1.bias is int32 (2,), not float32 (2,)",
    ),
    "unknown": (lambda state: state | {f"x.{i}": torch.zeros(1) for i in range(5)}, "no x.0, x.1, x.2 and 2 more"),
    "missing": (
        lambda state: {k: v for k, v in state.items() if k != "stem.0.weight"},
        "the file has no stem.0.weight",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_named_and_nothing_is_loaded(fault, tmp_path):
    change, words = FAULTS[fault]
    target = _network(seed=1)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    state = change(_network(seed=0).state_dict())
    path = tmp_path / "other.safetensors"
    save_file(state, path)
    for load in (load_backbone, load_weights):
        message = _refusal(load, target, path)
        assert message.startswith(f"{path}: ") and words in message
    assert _same(target, before)


def test_weights_of_another_backbone_of_ours_are_recognised(tmp_path):
    path = tmp_path / "other.pth"
    torch.save(_prefixed(r2plus1d_narrow().state_dict(), "module.") | {"module.fc.bias": torch.zeros(4)}, path)
    assert _refusal(load_backbone, _network(seed=0), path).endswith(
        "They are those of r2plus1d_narrow: choose that backbone, or other weights."
    )
    torch.save(_network(seed=0, width=7).state_dict(), path)
    assert "no backbone known here" in _refusal(load_backbone, _network(seed=0), path)


class _Planted:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return open, (str(self.path), "w")


def test_an_object_in_a_file_is_named_and_never_made(tmp_path):
    path, trace = tmp_path / "foreign.pth", tmp_path / "trace"
    torch.save({"state_dict": _network(seed=0).state_dict(), "args": argparse.Namespace(lr=1)}, path)
    message = _refusal(open_weights, path)
    assert "argparse.Namespace" in message and "safetensors" in message
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


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("keep", [0, 1, 20, 0.5, 0.99])
def test_a_file_that_was_cut_short_is_refused_in_one_line(suffix, keep, tmp_path):
    path, state = tmp_path / f"cut.{suffix}", _network(seed=0).state_dict()
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    message = _refusal(load_backbone, _network(seed=1), path)
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
    assert "must end in .safetensors, .pt, .pth, .pyth, but got '.tar'" in _refusal(open_weights, archive)


def test_our_own_file_gives_the_same_bits_and_its_metadata(tmp_path):
    source, target = _network(seed=0), _network(seed=1)
    path = tmp_path / "new" / "own.safetensors"
    for parameter in source.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    save_weights(source, path, metadata={"seed": "0", "score": "0.5 ± 0.1"})
    assert load_weights(target, path) == {"seed": "0", "score": "0.5 ± 0.1"}
    assert _same(target, source.state_dict())
    assert _same(target, load_file(path))
    assert [file.name for file in path.parent.iterdir()] == ["own.safetensors"]
    assert load_backbone(_network(seed=2), path).layout == "safetensors"


def test_our_own_file_is_not_cast(tmp_path):
    save_weights(_network(seed=0).half(), tmp_path / "half.safetensors", metadata={})
    assert "is float16" in _refusal(load_weights, _network(seed=1), tmp_path / "half.safetensors")


def test_the_same_weights_give_the_same_bytes_in_every_process(tmp_path):
    code = (
        "import sys, torch; from taghead.weights import save_weights, fingerprint;"
        "save_weights({'b': torch.ones(3), 'a': torch.zeros(2, 2)}, sys.argv[1], metadata=dict(zip('vwxyz', '12345')));"
        "print(fingerprint(sys.argv[1]))"
    )
    path = tmp_path / "w.safetensors"
    told = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    ).stdout.strip()
    again = tmp_path / "again.safetensors"
    metadata = dict(zip("zyxwv", "54321", strict=True))
    save_weights({"a": torch.zeros(2, 2), "b": torch.ones(3)}, again, metadata=metadata)
    assert fingerprint(path) == fingerprint(again) == told


def test_a_save_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "own.safetensors"
    save_weights({"a": torch.ones(2)}, path, metadata={})
    shared = torch.zeros(4)
    with pytest.raises(RuntimeError):
        save_weights({"a": shared, "b": shared}, path, metadata={})
    assert torch.equal(load_file(path)["a"], torch.ones(2))
    assert [file.name for file in tmp_path.iterdir()] == ["own.safetensors"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(min_size=1, max_size=200))
def test_a_fingerprint_is_the_sha256_of_the_file(content, tmp_path):
    path = tmp_path / "any.pth"
    path.write_bytes(content)
    assert fingerprint(path) == hashlib.sha256(content).hexdigest()[:16]
