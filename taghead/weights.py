"""Weights (a network's parameters, as those from IG-65M): opened, fitted to a backbone, written, told apart.

A file that a user hands over is not trusted: safetensors, or a pickle that torch reads with ``weights_only=True``.
It fits whole or it is refused; a network is never left half loaded.
"""

import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from taghead.backbones import BACKBONES
from taghead.errors import InputError
from taghead.files import written_whole

SUFFIXES = (".safetensors", ".pt", ".pth", ".pyth")
WRAPPERS = ("state_dict", "model_state", "model_state_dict")  # mmaction2's, PyTorchVideo's, the released TAG-Head's
CLASSIFIERS = ("fc.", "classifier.")
# The entries of a safetensors header come in another order at each save; a single one keeps the bytes the same.
METADATA_ENTRY = "taghead"


@dataclass(frozen=True)
class WeightsReport:
    """What became of a weights file.

    Attributes:
        path: The file.
        layout: How it holds its tensors: the format, and the wrappers and prefixes that were taken off.
        loaded: Names in the network that got their values from the file.
        skipped: Names in the file that are left out: a classifier, a head.
        missing: Names in the network that the file lacks; only counters of batches, which nothing reads.
    """

    path: Path
    layout: str
    loaded: tuple[str, ...]
    skipped: tuple[str, ...]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        left_out = f"; left out: {_some(self.skipped)}" if self.skipped else ""
        missing = f"; not in the file: {len(self.missing)} counters of batches" if self.missing else ""
        return f"{self.path.name} ({self.layout}): {len(self.loaded)} tensors loaded{left_out}{missing}."


def load_backbone(module: nn.Module, path: Path | str) -> WeightsReport:
    """Loads public weights, or our own, into a backbone.

    Wrappers and prefixes are taken off as by `open_weights`; half precision is cast; a classifier is left out. Where
    names begin with ``backbone.``, whatever stands beside it is left out too.

    Args:
        module: The backbone; left as it was where an error is raised.
        path: The file.

    Returns:
        What was loaded, skipped, missing; one line as text.

    Raises:
        InputError: As `open_weights`, or the weights are not those of this network.
    """
    path = Path(path)
    found, layout = open_weights(path)
    state, skipped, layout = _backbone_of(found, layout)
    wanted = module.state_dict()
    missing = tuple(name for name in wanted if name not in state and name.endswith(".num_batches_tracked"))
    state = {name: _cast(tensor, wanted.get(name)) for name, tensor in state.items()}
    if faults := _faults(state, {name: tensor for name, tensor in wanted.items() if name not in missing}):
        raise InputError(f"{path}: these weights do not fit the model: {faults}. {_remedy(state)}")
    module.load_state_dict(state, strict=False)
    return WeightsReport(path, layout, tuple(state), skipped, missing)


def open_weights(path: Path | str) -> tuple[dict[str, Tensor], str]:
    """Reads a file of weights to tensors by name, on the CPU.

    The wrappers ``state_dict``, ``model_state`` and ``model_state_dict`` are taken off, and the prefixes ``module.``
    and ``model.`` where all names have them.

    Args:
        path: A file that ends in .safetensors, .pt, .pth or .pyth.

    Returns:
        The tensors, and in words how the file held them.

    Raises:
        InputError: No such file, an empty or damaged one, one that holds more than tensors.
    """
    path = _checked(path)
    if path.suffix == ".safetensors":
        return _without_prefixes(_read_safetensors(path)[0], "safetensors")
    state, layout = _unwrapped(_read_pickle(path))
    if not isinstance(state, Mapping) or not state:
        raise InputError(f"{path}: expected tensors by name (a state dict), got {_described(state)}.")
    for name, tensor in state.items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor)):
            raise InputError(
                f"{path}: expected tensors by name (a state dict), got {_described(tensor)} as {name!r}; "
                f"a state dict within another one must be under {', '.join(WRAPPERS)}."
            )
    return _without_prefixes(dict(state), layout)


def save_weights(weights: nn.Module | Mapping[str, Tensor], path: Path | str, *, metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file whole or not at all; the same weights and metadata give the same bytes.

    Args:
        weights: A network, or tensors by name.
        path: The file; its folder is made if it is not there.
        metadata: Facts about the weights, kept in the file's header.
    """
    path = Path(path)
    state = weights.state_dict() if isinstance(weights, nn.Module) else weights
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as beside:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()},
            beside,
            metadata={METADATA_ENTRY: json.dumps(dict(metadata), sort_keys=True)},
        )


def load_weights(module: nn.Module, path: Path | str) -> dict[str, str]:
    """Loads a file of `save_weights` into the same network, bit for bit.

    Args:
        module: The network; left as it was where an error is raised.
        path: The file.

    Returns:
        The metadata.

    Raises:
        InputError: No such file, a damaged one, or one whose names, shapes or types are not just the network's.
    """
    path = _checked(path)
    state, metadata = _read_safetensors(path)
    if faults := _faults(state, module.state_dict()):
        raise InputError(f"{path}: written for another model: {faults}. Build the model from the same config.")
    module.load_state_dict(state)
    return json.loads(metadata.get(METADATA_ENTRY, "{}"))


def fingerprint(path: Path | str) -> str:
    """The first 16 hexadecimal digits of a file's SHA-256.

    Raises:
        InputError: No such file, or an empty one.
    """
    with _checked(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _checked(path: Path | str) -> Path:
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file of weights.")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty; fetch it again.")
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: a file of weights must end in {', '.join(SUFFIXES)}, but got {path.suffix!r}.")
    return path


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except SafetensorError as error:
        raise InputError(f"{path}: cut short or no safetensors file ({error}); fetch it again.") from None


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old pickle protocols: advice to the developers of torch
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can end in any
        if refused := re.search(r"GLOBAL (\S+)", str(error)):
            raise InputError(
                f"{path}: holds the Python object {refused[1]}, and objects in files are not trusted here; "
                "where you trust it, save its plain state dict, or convert that to safetensors."
            ) from None
        raise InputError(
            f"{path}: no torch file, cut short, or holding Python objects, never trusted ({type(error).__name__}); "
            "fetch it again, or save the plain state dict with torch.save."
        ) from None


def _unwrapped(value: Any) -> tuple[Any, str]:
    layout = "torch file"
    for _ in WRAPPERS:  # not for ever: a pickle can hold itself
        inside = [key for key in WRAPPERS if isinstance(value, Mapping) and isinstance(value.get(key), Mapping)]
        if inside:
            value, layout = value[inside[0]], f"{layout}, in {inside[0]}"
    return value, layout


def _without_prefixes(state: dict[str, Tensor], layout: str) -> tuple[dict[str, Tensor], str]:
    for prefix in ("module.", "model.", "module."):  # a wrapper for several GPUs stands outside or inside
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
            layout = f"{layout}, without {prefix}"
    return state, layout


def _backbone_of(found: dict[str, Tensor], layout: str) -> tuple[dict[str, Tensor], tuple[str, ...], str]:
    """The tensors of the backbone, the names of the others, and the layout."""
    prefix = "backbone." if any(name.startswith("backbone.") for name in found) else ""
    inside = {name: name.removeprefix(prefix) for name in found if name.startswith(prefix)}
    state = {inner: found[name] for name, inner in inside.items() if not inner.startswith(CLASSIFIERS)}
    skipped = tuple(name for name in found if inside.get(name) not in state)
    return state, skipped, f"{layout}, without {prefix}" if prefix else layout


def _cast(tensor: Tensor, like: Tensor | None) -> Tensor:
    """Halves to singles; never integers to anything."""
    if like is None or not (tensor.is_floating_point() and like.is_floating_point()):
        return tensor
    return tensor.to(like.dtype)


def _faults(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """What keeps these tensors from being the wanted ones, or nothing."""
    kinds = [
        f"{name} is {_described(state[name])}, not {_described(tensor)}"
        for name, tensor in wanted.items()
        if name in state and (state[name].shape, state[name].dtype) != (tensor.shape, tensor.dtype)
    ]
    unknown = [name for name in state if name not in wanted]
    missing = [name for name in wanted if name not in state]
    groups = (("", kinds), ("the model has no ", unknown), ("the file has no ", missing))
    return "; ".join(words + _some(names) for words, names in groups if names)


def _remedy(state: Mapping[str, Tensor]) -> str:
    """Names the backbone whose weights they are, if it is one of ours."""
    shapes = {name: tensor.shape for name, tensor in state.items() if not name.endswith(".num_batches_tracked")}
    for name, backbone in BACKBONES.items():
        with torch.device("meta"):
            wanted = backbone().state_dict()
        if shapes == {key: value.shape for key, value in wanted.items() if not key.endswith(".num_batches_tracked")}:
            return f"They are those of {name}: choose that backbone, or other weights."
    return "They are those of no backbone known here: choose other weights."


def _described(value: object) -> str:
    if not isinstance(value, Tensor):
        return f"a value of type {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


def _some(names: Iterable[str], limit: int = 3) -> str:
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
