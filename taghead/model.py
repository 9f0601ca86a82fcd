"""From a config, or from a file of weights, to a module: a 3D backbone with a head on its tokens.

Legend: B clips, F frames, S pixels of the crop's side, T time steps, P sites, C channels, K classes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from taghead.backbones import BACKBONES, freeze, grid_of
from taghead.backbones.own import build_own, features_of, source_of
from taghead.config import Config, evolve, load
from taghead.errors import InputError, nearest
from taghead.head import LinearHead, TAGHead, grid_tokens, interpolate_positions
from taghead.recipes import recipe
from taghead.released import NUM_CLASSES, check_edges, facts_of, model_names
from taghead.weights import fitted
from taghead.weights_file import WeightsFile, open_weights
from taghead.weights_layout import recognise, released_view

OWN_FILE = "weights.safetensors"  # in the folder of a trial
_POSITIONS = "head.pos_embedding"


class VideoModel(nn.Module):
    """A backbone and a head: clips in, logits out.

    Args:
        backbone: A module with ``channels`` that maps (B, 3, F, S, S) to (B, C, T, H, W).
        head: `TAGHead`, `LinearHead`, or anything with ``embed`` and ``classify``.
    """

    def __init__(self, backbone: nn.Module, head: TAGHead | LinearHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def tokens(self, clip: Float[Tensor, "B 3 F S S"]) -> Float[Tensor, "B T P C"]:
        """The backbone's features as a grid of tokens."""
        return grid_tokens(self.backbone(clip))

    def forward(self, clip: Float[Tensor, "B 3 F S S"]) -> Float[Tensor, "B K"]:
        """The logits of each clip."""
        return self.head(self.tokens(clip))


def build_model(config: Config, num_classes: int) -> VideoModel:
    """Builds the backbone, then the head, drawing from torch's global generator in that order.

    Args:
        config: The experiment.
        num_classes: K.

    Raises:
        InputError: A user's own backbone fails, or does not take the config's clips.
    """
    model, data = config.model, config.data
    if model.backbone_source is not None:
        backbone = build_own(model.backbone, model.backbone_source, norm_momentum=model.norm_momentum)
        size = {"num_frames": data.num_frames, "crop_size": data.crop_size}
        channels, *grid = features_of(backbone, name=model.backbone, **size)
    else:
        options = {} if model.norm_momentum is None else {"norm_momentum": model.norm_momentum}
        backbone, channels = BACKBONES[model.backbone](**options), BACKBONES[model.backbone].channels
        grid = [*grid_of(model.backbone, data.num_frames, data.crop_size)]
    if model.freeze_backbone:
        freeze(backbone)
    return VideoModel(backbone, build_head(config, channels, (grid[0], grid[1], grid[2]), num_classes))


def build_head(config: Config, channels: int, grid: tuple[int, int, int], num_classes: int) -> TAGHead | LinearHead:
    """Builds the head alone, drawing from torch's global generator.

    Args:
        config: The experiment.
        channels: C of the backbone's features.
        grid: (T, H, W) of them.
        num_classes: K.
    """
    if config.model.head == "linear":
        return LinearHead(channels, num_classes)
    return TAGHead(channels, grid, num_classes, **config.head.model_dump())


@dataclass(frozen=True)
class Trained:
    """A model that was read from a file, and what it must be shown.

    Attributes:
        model: In eval mode, on the CPU.
        config: The experiment that it comes from; where it is a released checkpoint, the recipe ``released`` with what
            the file's shapes say. Clips are to be sampled, cropped and normalised as its ``data`` says.
        classes: Their names by label; empty for a released checkpoint, which has none.
        num_classes: K.
    """

    model: VideoModel
    config: Config
    classes: tuple[str, ...]
    num_classes: int


def load_released(
    path: Path | str, dataset: str, *, num_frames: int | None = None, interpolate_positions: bool = False
) -> VideoModel:
    """Builds a released TAG-Head (public repository ImtiazUlHassan/Tag-Head); its call gives the authors' logits.

    Args:
        path: ``haa500_best.pth``, ``gym99_best.pth``, ``gym288_last.pth``, or another file of that layout.
        dataset: ``haa500``, ``gym99`` or ``gym288``.
        num_frames: F of the clips that it will be shown; None: the data set's (32, 64, 64).
        interpolate_positions: Whether to stretch the positional encodings in time if they are of another F.

    Returns:
        The model in eval mode, on the CPU; normalisation and crop are those of the recipe ``released``.

    Raises:
        InputError: No released checkpoint, or one of another data set, another number of frames, or another graph.
    """
    file = open_weights(path)
    return _released(file, dataset, num_frames=num_frames, stretch=interpolate_positions).model


def load_trained(path: Path | str, *, num_frames: int | None = None, interpolate_positions: bool = False) -> Trained:
    """Builds the model of one of our trials from its weights file alone, which holds config and classes.

    Args:
        path: ``weights.safetensors`` of a trial, or the trial's folder.
        num_frames: F of the clips that it will be shown; None: as it was trained.
        interpolate_positions: Whether to stretch the positional encodings in time if they are of another F.

    Raises:
        InputError: No such file, or not such a one; positional encodings of another F; or a user's own backbone whose
            source is not here as it was (code in a weights file is never run).
    """
    return _trained(_open(path), num_frames=num_frames, stretch=interpolate_positions)


def load_any(
    path: Path | str,
    dataset: str | None = None,
    *,
    num_frames: int | None = None,
    interpolate_positions: bool = False,
) -> Trained:
    """Builds the model of one of our trials, or a released one, whichever the file is.

    Args:
        path: A file of weights, or the folder of a trial.
        dataset: Of a released checkpoint; None: the one that has as many classes. Not read for our trials.
        num_frames: As `load_released` and `load_trained`.
        interpolate_positions: As `load_released` and `load_trained`.

    Raises:
        InputError: As `load_released` and `load_trained`, or the file is neither.
    """
    if dataset is not None and dataset not in NUM_CLASSES:
        raise InputError(f"{path}: no released model is for {dataset!r}{nearest(dataset, NUM_CLASSES)}")
    file = _open(path)
    if released_view(file.tensors) is None:
        return _trained(file, num_frames=num_frames, stretch=interpolate_positions)
    return _released(file, dataset, num_frames=num_frames, stretch=interpolate_positions)


def _open(path: Path | str) -> WeightsFile:
    path = Path(path)
    if path.is_dir() and not (path / OWN_FILE).is_file():
        raise InputError(
            f"{path}: holds no {OWN_FILE}; name a trial that kept its weights (--keep weights), or a file."
        )
    return open_weights(path / OWN_FILE if path.is_dir() else path)


def _released(file: WeightsFile, dataset: str | None, *, num_frames: int | None, stretch: bool) -> Trained:
    view = released_view(file.tensors)
    if view is None:
        raise InputError(f"{file.path}: no released TAG-Head. {recognise(file).remedy}")
    facts = facts_of(view.tensors, path=file.path)
    dataset = dataset or facts.dataset
    if dataset is None:
        raise InputError(
            f"{file.path}: has {facts.num_classes} classes, as no data set of the paper has; name the data set, "
            f"{', '.join(NUM_CLASSES)}."
        )
    if dataset not in NUM_CLASSES:
        raise InputError(f"{file.path}: no released model is for {dataset!r}{nearest(dataset, NUM_CLASSES)}")
    if facts.num_classes != NUM_CLASSES[dataset]:
        raise InputError(
            f"{file.path}: {dataset} has {NUM_CLASSES[dataset]} classes, but the file has {facts.num_classes}"
            f"{f': name {facts.dataset}' if facts.dataset else ''}, or choose another file."
        )
    if "edge_index" in view.tensors:
        check_edges(view.tensors["edge_index"], facts.grid, path=file.path)
    config = recipe(dataset, name="released")
    seen = {"data.num_frames": config.data.num_frames if num_frames is None else num_frames}
    config = evolve(config, {**seen, "head.ffn_dim": facts.ffn_dim, "head.num_layers": facts.num_layers})
    model = build_model(config, facts.num_classes)
    _fill(model, model_names(view.tensors), config, path=file.path, num_frames=facts.num_frames, stretch=stretch)
    return Trained(model, config, (), facts.num_classes)


def _trained(file: WeightsFile, *, num_frames: int | None, stretch: bool) -> Trained:
    if not {"config", "classes"} <= file.metadata.keys():
        raise InputError(
            f"{file.path}: no model with config and classes, as trials keep it; it is {recognise(file)}. Train a head "
            "first, keeping its weights (--keep weights)."
        )
    config = load(file.metadata["config"], source=str(file.path))
    classes = _classes(file)
    _check_source(config, path=file.path)
    trained_with = config.data.num_frames
    if num_frames is not None:
        config = evolve(config, {"data.num_frames": num_frames})
    model = build_model(config, len(classes))
    _fill(model, file.tensors, config, path=file.path, num_frames=trained_with, stretch=stretch)
    return Trained(model, config, classes, len(classes))


def _classes(file: WeightsFile) -> tuple[str, ...]:
    try:
        classes = json.loads(file.metadata["classes"])
    except ValueError:
        classes = None
    if not (isinstance(classes, list) and classes and all(isinstance(name, str) for name in classes)):
        raise InputError(f"{file.path}: its classes are no list of names; choose another file.")
    return tuple(classes)


def _check_source(config: Config, *, path: Path) -> None:
    """A weights file may come from anybody: the code of a backbone is run only where the user has the same code."""
    name = config.model.backbone
    if config.model.backbone_source is None:
        return
    module = name.partition(":")[0]
    rule = f"{path}: its backbone {name} is code, which is never run from a weights file: put {module}.py here"
    try:
        here = source_of(name)
    except InputError as error:
        raise InputError(f"{rule} ({error})") from None
    if here != config.model.backbone_source:
        raise InputError(f"{rule} as it was when the model was trained; the one that is here differs.")


def _fill(
    model: VideoModel, tensors: Mapping[str, Tensor], config: Config, *, path: Path, num_frames: int, stretch: bool
) -> None:
    """Loads all of a model, its positional encodings stretched if need be, and puts it into eval mode."""
    tensors, head = dict(tensors), model.head
    if isinstance(head, TAGHead) and (there := _time_steps(tensors.get(_POSITIONS), head)) not in (None, head.grid[0]):
        time, sites = head.grid
        if not stretch:
            raise InputError(
                f"{path}: its positional encodings are of {there} time steps ({num_frames} frames), but "
                f"{config.data.num_frames} frames give {time}: set data.num_frames={num_frames}, or ask for "
                "interpolation in time (interpolate_positions)."
            )
        tensors[_POSITIONS] = interpolate_positions(tensors[_POSITIONS].float(), num_sites=sites, time_steps=time)
    model.load_state_dict(fitted(tensors, model.state_dict(), path=path), strict=False)
    model.eval()


def _time_steps(positions: Tensor | None, head: TAGHead) -> int | None:
    """T of positional encodings that differ from the head's in time alone, if in anything."""
    own = head.pos_embedding
    if positions is None or own is None or positions.ndim != 3 or not positions.is_floating_point():
        return None
    steps, rest = divmod(positions.shape[1], head.grid[1])
    return steps if steps and not rest and positions.shape[::2] == own.shape[::2] else None
