"""A file of weights, opened without trust: safetensors, or a pickle that torch reads with ``weights_only=True``.

What the file is, is told by its content; its suffix says nothing.
"""

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from taghead.errors import InputError
from taghead.files import existing

# mmaction2's and Lightning's; PyTorchVideo's; the released TAG-Head's; that of torchvision's training scripts
WRAPPERS = ("state_dict", "model_state", "model_state_dict", "model")
# The entries of a safetensors header come in another order at each save; a single one keeps the bytes the same.
METADATA_ENTRY = "taghead"


@dataclass(frozen=True)
class WeightsFile:
    """What a file of weights holds.

    Attributes:
        path: The file.
        format: ``safetensors`` or ``torch file``.
        wrappers: The dictionaries that the tensors were in, from the outside.
        tensors: By name, as they are in the file, on the CPU.
        metadata: The facts that `taghead.weights.save_weights` keeps beside them; empty for other files.
    """

    path: Path
    format: str
    wrappers: tuple[str, ...]
    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    @property
    def layout(self) -> str:
        """Format and wrappers in words."""
        return ", ".join([self.format, *(f"in {wrapper}" for wrapper in self.wrappers)])


def open_weights(path: Path | str) -> WeightsFile:
    """Reads a file of weights to tensors by name.

    The tensors may stand in ``state_dict``, ``model_state``, ``model_state_dict`` or ``model``, beside anything that
    is no Python object.

    Args:
        path: The file.

    Raises:
        InputError: No such file, an empty or damaged one, or one that holds something else than tensors by name.
    """
    path = existing(path)
    if _is_safetensors(path):
        tensors, metadata = _read_safetensors(path)
        return WeightsFile(path, "safetensors", (), tensors, metadata)
    value, wrappers = _unwrapped(_read_pickle(path))
    if not isinstance(value, Mapping) or not value:
        raise InputError(f"{path}: expected tensors by name (a state dict), got {described(value)}.")
    for name, tensor in value.items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor)):
            raise InputError(
                f"{path}: expected tensors by name (a state dict), got {described(tensor)} as {name!r}; "
                f"a state dict within another one must be under {', '.join(WRAPPERS)}."
            )
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            raise InputError(f"{path}: {name} is sparse, quantized or empty of values; save plain tensors.")
    return WeightsFile(path, "torch file", wrappers, {name: value[name].detach() for name in value}, {})


def described(value: object) -> str:
    """Type and shape of a tensor, or the type of anything else."""
    if not isinstance(value, Tensor):
        return f"a value of type {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(9)
    return path.suffix == ".safetensors" or start[8:] == b"{"  # the header's length in 8 bytes, then its JSON


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            metadata = (file.metadata() or {}).get(METADATA_ENTRY, "{}")
    except SafetensorError as error:
        raise InputError(f"{path}: cut short or no safetensors file ({error}); fetch it again.") from None
    if not tensors:
        raise InputError(f"{path}: holds no tensors; choose another file.")
    try:
        return tensors, {str(name): str(value) for name, value in json.loads(metadata).items()}
    except (ValueError, AttributeError):
        raise InputError(f"{path}: its metadata {METADATA_ENTRY!r} is no JSON object; fetch the file again.") from None


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old pickle protocols: advice to the developers of torch
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can end in any
        plain = "torch.save(torch.load(FILE, weights_only=False)['state_dict'], NEW)"
        if refused := re.search(r"GLOBAL (\S+)", str(error)):
            raise InputError(
                f"{path}: holds the Python object {refused[1]}, and objects in files are not trusted here; where you "
                f"trust the file, save its plain state dict: {plain}."
            ) from None
        if "TorchScript" in str(error):
            raise InputError(
                f"{path}: a TorchScript archive, which holds code; save its plain state dict: "
                "torch.save(torch.jit.load(FILE).state_dict(), NEW)."
            ) from None
        raise InputError(
            f"{path}: no torch file, cut short, or holding Python objects, never trusted ({type(error).__name__}); "
            f"fetch it again, or save its plain state dict: {plain}."
        ) from None


def _unwrapped(value: Any) -> tuple[Any, tuple[str, ...]]:
    wrappers: tuple[str, ...] = ()
    for _ in WRAPPERS:  # not for ever: a pickle can hold itself
        inside = [key for key in WRAPPERS if isinstance(value, Mapping) and isinstance(value.get(key), Mapping)]
        if inside:
            value, wrappers = value[inside[0]], (*wrappers, inside[0])
    return value, wrappers
