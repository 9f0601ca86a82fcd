"""Weights: every layout that is met in public fits, and what does not fit is refused before anything is loaded."""

import errno
import hashlib
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

from taghead import weights
from taghead.backbones.r2plus1d import R2Plus1D, r2plus1d_narrow
from taghead.errors import InputError
from taghead.files import fingerprint
from taghead.weights import convert, inspect, load_backbone, load_weights, save_weights

State = dict[str, Tensor]


def _network(*, seed: int, width: int = 6) -> R2Plus1D:
    torch.manual_seed(seed)
    network = r2plus1d_narrow(stem=(2, 4), widths=(4, width), depths=(1, 1), strides=((1, 1), (2, 2)))
    network.train()(torch.randn(2, 3, 4, 8, 8))  # moves the running statistics
    return network


def _public(network: nn.Module) -> State:
    return network.state_dict() | {"fc.weight": torch.zeros(5, 6), "fc.bias": torch.zeros(5)}


def _in(state: State, dtype: torch.dtype) -> State:
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}


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


WRAPS: dict[str, Callable[[State], object]] = {
    "": lambda state: state,
    "state_dict": lambda state: {"state_dict": OrderedDict(state), "epoch": 3},
    "model_state": lambda state: {"model_state": state, "cfg": "a text"},
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {}}},
    "model": lambda state: {"model": state, "args": {"lr": 0.1}},
    "model_state_dict, state_dict": lambda state: {"model_state_dict": {"state_dict": state}},
}
PREFIXES = ["", "module.", "model.", "backbone.", "module.backbone.", "model.module.backbone."]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("wrappers", WRAPS)
def test_every_wrapper_prefix_and_precision_gives_the_same_network(
    wrappers: str, prefix: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    source, target = _network(seed=0), _network(seed=1)
    state = _in(_public(source), dtype)
    torch.save(WRAPS[wrappers](_prefixed(state, prefix)), tmp_path / "public.pth")
    report = load_backbone(target, tmp_path / "public.pth")
    assert _same(target, {name: tensor.float() for name, tensor in state.items()})
    without = [f"without {part}." for part in prefix.split(".")[:-1]]
    assert report.layout == ", ".join(["torch file", *(f"in {one}" for one in wrappers.split(", ") if one), *without])
    assert set(report.loaded) == set(source.state_dict())
    assert report.skipped == (f"{prefix}fc.weight", f"{prefix}fc.bias")
    assert report.missing == ()


def _contiguous(state):
    return {name: tensor.contiguous() for name, tensor in state.items()}


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_safetensors_are_read_alike(prefix: str, dtype: torch.dtype, tmp_path: Path) -> None:
    source, target = _network(seed=0), _network(seed=1)
    state = _in(_public(source), dtype)
    save_file(_contiguous(_prefixed(state, prefix)), tmp_path / "public.safetensors")
    assert load_backbone(target, tmp_path / "public.safetensors").layout.startswith("safetensors")
    assert _same(target, {name: tensor.float() for name, tensor in state.items()})


def test_a_prefix_that_is_in_the_network_s_own_names_stays(tmp_path: Path) -> None:
    source, target = (nn.ModuleDict({"backbone": _network(seed=seed)}) for seed in (0, 1))
    for prefix in ("", "module.", "backbone."):
        torch.save(_prefixed(source.state_dict(), prefix), tmp_path / "own.pth")
        load_backbone(target, tmp_path / "own.pth")
        assert _same(target, source.state_dict())
        target = nn.ModuleDict({"backbone": _network(seed=2)})


def test_a_network_says_what_its_classifier_is(tmp_path: Path) -> None:
    source, target = _network(seed=0), _network(seed=1)
    target.classifier_prefixes = ("blocks.5.",)
    torch.save(source.state_dict() | {"blocks.5.proj.weight": torch.zeros(4, 6)}, tmp_path / "a.pyth")
    assert load_backbone(target, tmp_path / "a.pyth").skipped == ("blocks.5.proj.weight",)
    torch.save(source.state_dict() | {"blocks.6.proj.weight": torch.zeros(4, 6)}, tmp_path / "b.pyth")
    assert "the model has no blocks.6.proj.weight" in _refusal(load_backbone, target, tmp_path / "b.pyth")


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


def test_doubles_are_cast(tmp_path: Path) -> None:
    target, state = _network(seed=1), _in(_public(_network(seed=0)), torch.float64)
    torch.save(state, tmp_path / "double.pth")
    load_backbone(target, tmp_path / "double.pth")
    assert _same(target, {name: tensor.float() for name, tensor in state.items()})
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
    save_file(_contiguous(state), path)
    for load in (load_backbone, load_weights):
        message = _refusal(load, target, path)
        assert message.startswith(f"{path}: ") and words in message
    assert _same(target, before)


def test_how_many_of_how_many_match_is_told(tmp_path: Path) -> None:
    target, state = _network(seed=1), _network(seed=0).state_dict()
    kept = dict(list(state.items())[:5])
    torch.save(kept, tmp_path / "few.pth")
    total = len(target.state_dict())
    assert f"5 of its {total} tensors match; the file has no " in _refusal(load_backbone, target, tmp_path / "few.pth")
    torch.save({"a.weight": torch.zeros(3), "b": torch.zeros(1)}, tmp_path / "none.pth")
    assert f"0 of its {total} tensors match" in _refusal(load_backbone, target, tmp_path / "none.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e39])
def test_weights_that_are_no_numbers_are_named_and_not_loaded(value: float, tmp_path: Path) -> None:
    target = _network(seed=1)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    state = _in(_public(_network(seed=0)), torch.float64)  # 1e39 is a number there, but none in float32
    state["layer1.0.conv1.1.running_var"][2] = value
    torch.save(state, tmp_path / "bad.pth")
    message = _refusal(load_backbone, target, tmp_path / "bad.pth")
    assert "finite" in message and "layer1.0.conv1.1.running_var" in message
    assert _same(target, before)


def test_a_classifier_that_is_left_out_may_hold_anything(tmp_path: Path) -> None:
    state = _network(seed=0).state_dict() | {"fc.weight": torch.full((5, 6), torch.nan)}
    torch.save(state, tmp_path / "nan.pth")
    load_backbone(_network(seed=1), tmp_path / "nan.pth")


def test_weights_of_another_backbone_of_ours_are_recognised(tmp_path):
    path = tmp_path / "other.pth"
    torch.save(_prefixed(r2plus1d_narrow().state_dict(), "module.") | {"module.fc.bias": torch.zeros(4)}, path)
    assert _refusal(load_backbone, _network(seed=0), path).endswith(
        "They are those of r2plus1d_narrow: choose that backbone, or other weights."
    )
    torch.save(_network(seed=0, width=7).state_dict(), path)
    assert "no backbone known here (" in _refusal(load_backbone, _network(seed=0), path)


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
        "import sys, torch; from taghead.files import fingerprint; from taghead.weights import save_weights;"
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


class _Tied(nn.Module):
    """Two layers with one weight, as a user's own backbone may have them; and a buffer that is a part of another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.register_buffer("whole", torch.randn(6))
        self.register_buffer("part", self.whole[2:5])


def test_tied_weights_come_back_tied(tmp_path: Path) -> None:
    path = tmp_path / "tied.safetensors"
    source, target, backbone = _Tied(), _Tied(), _Tied()
    save_weights(source, path, metadata={"seed": "0"})
    assert load_weights(target, path) == {"seed": "0"}
    assert set(load_backbone(backbone, path).loaded) == set(source.state_dict())
    for network in (target, backbone):
        assert _same(network, source.state_dict())
        assert network.second.weight is network.first.weight
    untied = source.state_dict()
    untied["second.weight"] = source.first.weight.detach().clone()
    save_weights(untied, tmp_path / "untied.safetensors", metadata={"seed": "0"})
    assert fingerprint(path) == fingerprint(tmp_path / "untied.safetensors")


def test_a_save_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own.safetensors"
    save_weights({"a": torch.ones(2)}, path, metadata={})

    def full(tensors: State, to: Path, **_: object) -> None:
        to.write_bytes(b"half of them")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_weights({"a": torch.zeros(2)}, path, metadata={})
    assert torch.equal(load_file(path)["a"], torch.ones(2))
    assert [file.name for file in tmp_path.iterdir()] == ["own.safetensors"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(min_size=1, max_size=200))
def test_a_fingerprint_is_the_sha256_of_the_file(content, tmp_path):
    path = tmp_path / "any.pth"
    path.write_bytes(content)
    assert fingerprint(path) == hashlib.sha256(content).hexdigest()[:16]


def test_inspect_tells_layout_network_size_and_types(tmp_path: Path) -> None:
    state = _in(r2plus1d_narrow().state_dict(), torch.float16)
    state |= {"fc.weight": torch.zeros(7, 128), "fc.bias": torch.full((7,), torch.nan)}
    torch.save({"state_dict": _prefixed(state, "module.")}, tmp_path / "narrow.pth")
    found = inspect(tmp_path / "narrow.pth")
    counters = sum(name.endswith("num_batches_tracked") for name in state)
    assert found.network.name == "r2plus1d_narrow"
    assert found.num_parameters == 440_488 + 7 * 128 + 7
    assert found.dtypes == {"float16": len(state) - counters - 2, "int64": counters, "float32": 2}
    assert str(found).splitlines() == [
        str(tmp_path / "narrow.pth"),
        "  network: r2plus1d_narrow, with a classifier of 7 classes",
        "  layout: torch file, in state_dict, without module.",
        f"  tensors: {len(state)} ({len(state) - counters - 2} float16, {counters} int64, 2 float32); "
        f"{found.num_parameters:,} parameters",
        "  not finite: module.fc.bias",
    ]


def test_inspect_shows_the_facts_that_our_files_keep(tmp_path: Path) -> None:
    save_weights(r2plus1d_narrow(), tmp_path / "own.safetensors", metadata={"seed": "3", "classes": "x" * 200})
    text = str(inspect(tmp_path / "own.safetensors"))
    assert "  seed: 3" in text.splitlines() and f"  classes: {'x' * 97}..." in text.splitlines()


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("wrappers", WRAPS)
def test_a_converted_file_holds_the_same_values_by_the_network_s_names(
    wrappers: str, prefix: str, tmp_path: Path
) -> None:
    state = _in(_public(_network(seed=0)), torch.float16)
    torch.save(WRAPS[wrappers](_prefixed(state, prefix)), tmp_path / "public.pth")
    written = convert(tmp_path / "public.pth", tmp_path / "new" / "public.safetensors")
    assert written.layout == "safetensors"
    found = load_file(tmp_path / "new" / "public.safetensors")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in state.items())


def test_a_converted_file_keeps_a_head_beside_the_backbone_and_its_metadata(tmp_path: Path) -> None:
    state = {"module.backbone.a": torch.ones(2), "module.head.b": torch.ones(3)}
    torch.save(state, tmp_path / "whole.pth")
    convert(tmp_path / "whole.pth", tmp_path / "whole.safetensors")
    assert load_file(tmp_path / "whole.safetensors").keys() == {"backbone.a", "head.b"}
    save_weights({"module.a": torch.ones(2)}, tmp_path / "own.safetensors", metadata={"seed": "3"})
    assert convert(tmp_path / "own.safetensors", tmp_path / "again.safetensors").metadata == {"seed": "3"}


def test_tensors_that_share_their_memory_are_converted(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    torch.save({"a": shared, "b": shared, "c": shared.reshape(2, 3).T}, tmp_path / "tied.pth")
    convert(tmp_path / "tied.pth", tmp_path / "tied.safetensors")
    assert torch.equal(load_file(tmp_path / "tied.safetensors")["c"], shared.reshape(2, 3).T)


def test_convert_never_writes_over_other_content(tmp_path: Path) -> None:
    source, out = tmp_path / "a.pth", tmp_path / "a.safetensors"
    torch.save({"a": torch.ones(2)}, source)
    convert(source, out)
    convert(source, out)  # the same once more is no harm
    before = out.read_bytes()
    torch.save({"a": torch.zeros(2)}, source)
    assert "is there already, with other content" in _refusal(convert, source, out)
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth", "a.safetensors"]
    (tmp_path / "folder.safetensors").mkdir()
    for wrong in ("a.pt", "folder.safetensors"):
        assert "must be a file whose name ends in .safetensors" in _refusal(convert, source, tmp_path / wrong)
