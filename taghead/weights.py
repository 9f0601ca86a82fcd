"""Weights (a network's parameters, as those from IG-65M): fitted to a network, written, converted, told apart.

A file that a user hands over fits whole or it is refused; a network is never left half loaded.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from taghead.errors import InputError
from taghead.files import fingerprint, written_whole
from taghead.weights_file import METADATA_ENTRY, described, open_weights
from taghead.weights_layout import CLASSIFIERS, COUNTERS, STATISTICS, Network, View, recognise, released_view, views


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


@dataclass(frozen=True)
class Inspection:
    """What a file of weights is.

    Attributes:
        path: The file.
        layout: Its format, and the wrappers and prefixes before the network's own names.
        network: Whose tensors they are, as far as it is known here.
        num_tensors: All that the file holds.
        num_parameters: Their elements, without running statistics and lists of edges.
        dtypes: How many tensors there are of each type.
        not_finite: Names of tensors that hold NaN or infinity.
        metadata: The facts that our own files keep.
    """

    path: Path
    layout: str
    network: Network
    num_tensors: int
    num_parameters: int
    dtypes: Mapping[str, int]
    not_finite: tuple[str, ...]
    metadata: Mapping[str, str]

    def __str__(self) -> str:
        dtypes = ", ".join(f"{count} {dtype}" for dtype, count in self.dtypes.items())
        lines = {
            "network": str(self.network),
            "layout": self.layout,
            "tensors": f"{self.num_tensors} ({dtypes}); {self.num_parameters:,} parameters",
            **({"not finite": _some(self.not_finite)} if self.not_finite else {}),
            **{name: value if len(value) <= 100 else f"{value[:97]}..." for name, value in self.metadata.items()},
        }
        return "\n".join([str(self.path), *(f"  {name}: {value}" for name, value in lines.items())])


def load_backbone(module: nn.Module, path: Path | str) -> WeightsReport:
    """Loads public weights, or our own, into a backbone.

    Wrappers (``state_dict``, ``model_state``, ``model_state_dict``, ``model``) and the prefixes ``module.``, ``model.``
    and ``backbone.`` are taken off, unless the module's own names have them; half precision is cast; a classifier is
    left out (the module's ``classifier_prefixes``). Where names begin with ``backbone.``, whatever stands beside it is
    left out too.

    Args:
        module: The backbone; left as it was where an error is raised.
        path: The file.

    Returns:
        What was loaded, skipped, missing; one line as text.

    Raises:
        InputError: As `taghead.weights_file.open_weights`, or the weights are not those of this network, or no numbers.
    """
    file = open_weights(path)
    wanted = module.state_dict()
    # Where none of them matches, the one with the fewest prefixes: so that an error is short.
    view = max(reversed(views(file.tensors)), key=lambda one: len(wanted.keys() & one.tensors.keys()))
    classifiers = getattr(module, "classifier_prefixes", CLASSIFIERS)
    state = {name: value for name, value in view.tensors.items() if name in wanted or not name.startswith(classifiers)}
    skipped = tuple(view.prefix + name for name in view.tensors if name not in state) + view.beside
    if faults := _faults(state, wanted, cast=True):
        raise InputError(f"{file.path}: these weights do not fit the model: {faults}. {recognise(file).remedy}")
    state = fitted(state, wanted, path=file.path)
    module.load_state_dict(state, strict=False)
    return WeightsReport(
        file.path,
        _layout(file.layout, view),
        loaded=tuple(state),
        skipped=skipped,
        missing=tuple(name for name in wanted if name not in state),
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
    file = open_weights(path)
    if faults := _faults(file.tensors, module.state_dict(), cast=False):
        raise InputError(f"{file.path}: written for another model: {faults}. Build the model from the same config.")
    module.load_state_dict(file.tensors)
    return file.metadata


def fitted(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, path: Path) -> dict[str, Tensor]:
    """The tensors in the types of a network, once it is sure that they are its own, and numbers.

    Args:
        state: Tensors by the network's names; counters of batches may be missing.
        wanted: The network's state dict.
        path: For the error message.

    Raises:
        InputError: Names, shapes or kinds differ; a value is NaN or infinite.
    """
    if faults := _faults(state, wanted, cast=True):
        raise InputError(f"{path}: these weights do not fit the model: {faults}.")
    state = {name: tensor.to(wanted[name].dtype) for name, tensor in state.items()}
    if names := _not_finite(state):
        raise InputError(
            f"{path}: weights must be finite, but NaN or infinity is in {_some(names)}; fetch the file again, or "
            "choose one whose training did not diverge."
        )
    return state


def save_weights(weights: nn.Module | Mapping[str, Tensor], path: Path | str, *, metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file whole or not at all; the same weights and metadata give the same bytes.

    Args:
        weights: A network, or tensors by name, which may share memory.
        path: The file; its folder is made if it is not there.
        metadata: Facts about the weights, kept in the file's header.
    """
    path = Path(path)
    state = weights.state_dict() if isinstance(weights, nn.Module) else weights
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as beside:
        save_file(_apart(state), beside, metadata={METADATA_ENTRY: json.dumps(dict(metadata), sort_keys=True)})


def _apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, none in the memory of another, which safetensors refuses: tied weights are written twice.

    Loading writes both into the one parameter of a tied network, which stays tied.
    """
    found: dict[str, Tensor] = {}
    taken = set()
    for name, tensor in state.items():
        value = tensor.detach().cpu().contiguous()
        memory = value.untyped_storage().data_ptr()
        found[name] = value.clone() if memory in taken else value
        taken.add(memory)
    return found


def inspect(path: Path | str) -> Inspection:
    """Tells what a file of weights is: its layout, and whose network's tensors it holds.

    Args:
        path: The file.

    Raises:
        InputError: As `taghead.weights_file.open_weights`.
    """
    file = open_weights(path)
    network = recognise(file)
    return Inspection(
        path=file.path,
        layout=_layout(file.layout, network.view),
        network=network,
        num_tensors=len(file.tensors),
        num_parameters=sum(
            tensor.numel()
            for name, tensor in file.tensors.items()
            if tensor.is_floating_point() and not name.endswith(STATISTICS)
        ),
        dtypes=Counter(str(tensor.dtype).removeprefix("torch.") for tensor in file.tensors.values()),
        not_finite=_not_finite(file.tensors),
        metadata=file.metadata,
    )


def convert(path: Path | str, out: Path | str) -> Inspection:
    """Writes all tensors of a file as safetensors, by the network's own names, in the types that they have.

    Wrappers and prefixes are taken off, but for ``backbone.`` where a head stands beside it. Metadata of ours is kept.

    Args:
        path: The file.
        out: The file to write, ``*.safetensors``; one of the same content may be there.

    Returns:
        What was written.

    Raises:
        InputError: As `taghead.weights_file.open_weights`; or the file to write has another suffix or is there already
            with other content.
    """
    file, out = open_weights(path), Path(out)
    if out.suffix != ".safetensors" or out.is_dir():
        raise InputError(f"{out}: what is written must be a file whose name ends in .safetensors.")
    found = released_view(file.tensors) or [view for view in views(file.tensors) if not view.beside][-1]
    new = out.with_name(f".{out.name}.new")
    try:
        save_weights(found.tensors, new, metadata=file.metadata)
        if out.exists() and fingerprint(out) != fingerprint(new):
            raise InputError(f"{out}: is there already, with other content; name another file, or remove it.")
        new.replace(out)
    finally:
        new.unlink(missing_ok=True)
    return inspect(out)


def _layout(layout: str, view: View) -> str:
    return ", ".join([layout, *(f"without {prefix}" for prefix in view.prefixes)])


def _not_finite(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    return tuple(name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all())


def _faults(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, cast: bool) -> str:
    """What keeps these tensors from being the wanted ones, or nothing.

    With ``cast``, halves and doubles pass for singles, and counters of batches may be missing.
    """

    def fits(tensor: Tensor, like: Tensor) -> bool:
        both_floating = cast and tensor.is_floating_point() and like.is_floating_point()
        return tensor.shape == like.shape and (tensor.dtype == like.dtype or both_floating)

    there = [name for name in wanted if name in state]
    kinds = [
        f"{name} is {described(state[name])}, not {described(wanted[name])}"
        for name in there
        if not fits(state[name], wanted[name])
    ]
    unknown = [name for name in state if name not in wanted]
    missing = [name for name in wanted if name not in state and not (cast and name.endswith(COUNTERS))]
    groups = (("", kinds), ("the model has no ", unknown), ("the file has no ", missing))
    faults = "; ".join(words + _some(names) for words, names in groups if names)
    return f"{len(there) - len(kinds)} of its {len(wanted)} tensors match; {faults}" if faults else ""


def _some(names: Iterable[str], limit: int = 3) -> str:
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
