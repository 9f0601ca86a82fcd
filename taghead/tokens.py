"""Token cache of a frozen backbone: what it makes of a clip is computed once, not once an epoch, and kept.

A frozen backbone (no gradients, norms that keep their statistics) gives the same tokens for the same view of a clip in
every epoch, trial and seed. `train.token_views` says of which views: the centre crop of evaluation, or K augmented
ones. Tokens lie beside the decoded frames. They are made clip by clip, so that a clip's depend on no other clip.

Legend: B clips, T time steps, P sites, C channels. For a linear head, which sees no more, the mean over all tokens is
kept in their place: T = P = 1.
"""

import os
import platform
import threading
import warnings
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from taghead.array_folder import HEAD_BYTES, ArrayFolder, digest
from taghead.backbones import BACKBONES, grid_of
from taghead.backbones.folded import inference_backbone
from taghead.backbones.own import build_own, features_of
from taghead.config import Config
from taghead.data.batches import Batch, training_order
from taghead.data.clips import Clip
from taghead.data.decode import DECODER, UnreadableClip
from taghead.data.frame_cache import FrameCache
from taghead.data.parallel import in_threads
from taghead.data.transforms import batch, draw_centre, draw_train
from taghead.head import LinearHead, TAGHead, grid_tokens
from taghead.model import VideoModel

VIEW_SEED = 0  # views are drawn for a data set, not for a trial, so that all seeds share them
SUFFIX = ".tokens"
POOLED_BATCH = 1024  # clips that a linear head is evaluated on at once
_RULES = "tokens 1"  # to be raised when the same key would hold other numbers
MEMORY_BYTES = 512 * 2**20

Stored = Float[np.ndarray, "T P C"]
_Place = tuple[str, bytes]  # name and key of a file


@dataclass(frozen=True)
class TokenBatch(Batch):
    """Clips that the backbone has seen already: ``frames`` holds their tokens."""

    frames: Float[Tensor, "B T P C"]


class TokenModel(VideoModel):
    """A head by itself, which is shown tokens where a `VideoModel` is shown clips.

    Args:
        head: Shared with the model that it belongs to.
    """

    def __init__(self, head: TAGHead | LinearHead) -> None:
        super().__init__(nn.Identity(), head)

    def tokens(self, clip: Float[Tensor, "B T P C"]) -> Float[Tensor, "B T P C"]:
        """The tokens as they are."""
        return clip

    def forward(self, clip: Float[Tensor, "B T P C"]) -> Float[Tensor, "B K"]:
        """The logits of each clip."""
        return self.head(clip)


class TokenCache:
    """Tokens of clips under a frozen backbone, by way of files in a folder, or in memory without one.

    Where the folder cannot be written it warns once, reads what is there, and keeps other tokens in memory, until
    ``memory_bytes`` are reached; of further clips the backbone makes them each time, of which it warns once too. The
    bits are the same.

    Args:
        config: The experiment; its ``train.token_views`` is not None.
        backbone: Frozen, with its weights, on ``device``.
        frames: Gives the decoded frames; clips that give none are in its ``unreadable``.
        folder: For the files; None keeps tokens in memory.
        mean: Of the colours in 0..1, as `taghead.data.transforms.batch` takes them.
        std: Likewise.
        device: Where the backbone is, and batches shall be.
        memory_bytes: The most that is kept in memory; None: `MEMORY_BYTES`.
    """

    def __init__(
        self,
        config: Config,
        backbone: nn.Module,
        *,
        frames: FrameCache,
        folder: Path | None,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        memory_bytes: int | None = None,
    ) -> None:
        self.pooled = config.model.head == "linear"
        self._config, self._device = config, device
        self._colours = (tuple(mean), tuple(std))
        self._frames = frames
        self._backbone = backbone
        self._network: nn.Module | None = None
        self._folder = ArrayFolder(folder, suffix=SUFFIX, what="tokens")
        self._made_of = digest(*self._everything(backbone))
        self._memory: dict[tuple[str, int | None], Stored] = {}
        self._free_bytes = MEMORY_BYTES if memory_bytes is None else memory_bytes
        self._lock = threading.Lock()

    def _everything(self, backbone: nn.Module) -> Iterable[object]:
        """All that tokens depend on, beside the clip and its view: what may change their bits is among it."""
        config = self._config
        yield from (_RULES, DECODER, self._frames.num_frames, self._frames.short_side)
        yield from (config.data.crop_size, *self._colours)
        yield from (config.model.backbone, config.model.backbone_source, weights_hash(backbone))
        yield from (config.train.precision, config.train.token_dtype, self.pooled)
        where = torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else platform.machine()
        yield from (where, torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), torch.__version__)

    def view_of(self, epoch: int) -> int | None:
        """The view that an epoch (from 0) trains on: the number of an augmented one, None for the centre crop."""
        views = self._config.train.token_views
        return epoch % views if views else None

    def get(self, clip: Clip, view: int | None) -> Stored:
        """The tokens of one view of a clip, in the stored type. The array is shared: read it only.

        Args:
            clip: Which one.
            view: As from `view_of`.

        Raises:
            UnreadableClip: The clip gives no frame.
            OSError: Its file is gone, or the disk does not give it.
        """
        place = self._key(clip, view)  # before the clip is read, lest it be replaced in between
        stored = self._stored(clip, view, place)
        return self._make(clip, self._frames.get(clip), view, place) if stored is None else stored

    def batches(
        self, clips: Sequence[Clip], *, view: int | None, batch_size: int, num_threads: int = 1
    ) -> Generator[TokenBatch, None, None]:
        """Clips in their order, as `taghead.data.batches.eval_batches` has them.

        Args:
            clips: Which ones.
            view: As from `view_of`.
            batch_size: Clips in a batch; the last may have fewer.
            num_threads: Threads that read ahead. Changes no bit of the result.
        """
        self.fill(clips, view)
        read = in_threads(lambda clip: self._known(clip, view), clips, num_threads=num_threads, most=2 * batch_size)
        with closing(read):
            while group := list(islice(read, batch_size)):
                yield self._batch(group, view)

    def evaluation_batches(self, clips: Sequence[Clip]) -> Generator[TokenBatch, None, None]:
        """The centre crops of all clips in their order.

        Args:
            clips: Of one split.
        """
        size = POOLED_BATCH if self.pooled else self._config.train.batch_size
        return self.batches(clips, view=None, batch_size=size)

    def train_batches(
        self, clips: Sequence[Clip], *, epoch: int, order: tuple[int, int], batch_size: int
    ) -> Generator[TokenBatch, None, None]:
        """The batches of one epoch of training, of the clips that `taghead.data.batches.train_batches` puts into them.

        Args:
            clips: Of the training split.
            epoch: From 0; decides the view.
            order: Seed and epoch that decide the order.
            batch_size: Clips in a batch.
        """
        ordered = [clips[index] for index in training_order(len(clips), seed=order[0], epoch=order[1])]
        for made in self.batches(ordered, view=self.view_of(epoch), batch_size=batch_size):
            if len(made.clips) >= min(2, batch_size):
                yield made

    def fill(self, clips: Sequence[Clip], view: int | None) -> None:
        """Makes the files that are not there yet; several processes that do so share the work.

        Each takes the clips in an order of its own, and passes over those that another has made in the meantime.
        Nothing to do without a folder that can be written: tokens are then made when they are asked for.
        """
        if not self._folder.writable:
            return
        missing = [clip for clip in clips if self._lacks(clip, view)]
        np.random.default_rng().shuffle(missing)

        def decoded(clip: Clip) -> tuple[_Place, UInt8[np.ndarray, "F _ _ 3"]] | None:
            with suppress(UnreadableClip):
                place = self._key(clip, view)
                return None if self._folder.holds(*place) else (place, self._frames.get(clip))
            return None

        with closing(in_threads(decoded, missing, num_threads=1, most=2)) as found:
            for clip, made in found:
                if made is not None and not self._folder.holds(*made[0]):
                    place, frames = made
                    self._make(clip, frames, view, place)
                if not self._folder.writable:
                    return  # any more

    def _lacks(self, clip: Clip, view: int | None) -> bool:
        """Whether a clip can be read as far as is known, and its tokens are not in the folder."""
        with suppress(UnreadableClip):
            return not self._folder.holds(*self._key(clip, view))
        return False

    def _known(self, clip: Clip, view: int | None) -> tuple[Stored | None, bool]:
        """The tokens as far as they are stored, and whether the clip can be read as far as is known."""
        try:
            return self._stored(clip, view, self._key(clip, view)), True
        except UnreadableClip:
            return None, False

    def _stored(self, clip: Clip, view: int | None, place: _Place) -> Stored | None:
        tokens = self._memory.get((clip.id, view))
        if tokens is None:
            tokens = self._folder.read(*place)
            if tokens is not None and self.pooled:  # small, and asked for in each epoch
                self._remember(clip, view, tokens)
        return tokens

    def _key(self, clip: Clip, view: int | None) -> _Place:
        """Name and key of a clip's file; a clip that has changed takes the place of the old one."""
        unreadable = self._frames.unreadable
        if clip.id in unreadable:
            raise UnreadableClip(clip.path, unreadable[clip.id])
        status = clip.path.stat()
        data = self._config.data
        drawn = () if view is None else (view, VIEW_SEED, clip.id, data.train_crop, data.flip)
        which = digest(self._made_of, os.fspath(clip.path), drawn)
        return which.hex()[:32], digest(which, status.st_size, status.st_mtime_ns)

    @torch.no_grad()
    def _make(self, clip: Clip, frames: UInt8[np.ndarray, "F _ _ 3"], view: int | None, place: _Place) -> Stored:
        data, (mean, std) = self._config.data, self._colours
        size = frames.shape[1:3]
        crop: dict[str, Any] = {"crop_size": data.crop_size}
        drawn: dict[str, Any] = {"seed": VIEW_SEED, "clip_id": clip.id, "crop": data.train_crop, "flip": data.flip}
        draw = draw_centre(size, **crop) if view is None else draw_train(size, epoch=view, **drawn, **crop)
        if self._network is None:
            self._network = inference_backbone(self._backbone, precision=self._config.train.precision).eval()
        pixels = batch([frames], [draw], **crop, mean=mean, std=std, device=self._device)
        tokens = grid_tokens(self._network(pixels).float())[0]
        if self.pooled:
            tokens = tokens.mean(dim=(0, 1), keepdim=True)
        # a copy, since a network may give its features in another order in memory than theirs
        array = np.array(tokens.cpu().numpy(), dtype=self._config.train.token_dtype, order="C")
        if not self._folder.write(*place, array):
            self._remember(clip, view, array)
        return array

    def _remember(self, clip: Clip, view: int | None, tokens: Stored) -> None:
        with self._lock:
            if self._free_bytes >= tokens.nbytes:
                self._free_bytes -= tokens.nbytes
                self._memory[clip.id, view] = tokens
                return
            told, self._free_bytes = self._free_bytes < 0, -1
        if not told and not self._folder.writable:
            warnings.warn(
                "the tokens of all clips do not fit into memory, so that the backbone runs again in each epoch for "
                "those that do not: name a folder that can be written (--cache).",
                stacklevel=2,
            )

    def _batch(self, group: Sequence[tuple[Clip, tuple[Stored | None, bool]]], view: int | None) -> TokenBatch:
        arrays: list[Stored | None] = []
        used: list[Clip] = []
        unreadable: list[Clip] = []
        for clip, (stored, readable) in group:
            try:
                arrays.append(self.get(clip, view) if stored is None and readable else stored)
            except UnreadableClip:
                readable = False
            (used if readable else unreadable).append(clip)
        known = [array for array in arrays if array is not None]
        tokens = torch.from_numpy(np.stack(known)) if known else torch.empty(0, 0, 0, 0)
        labels = torch.tensor([clip.label for clip in used], dtype=torch.int64, device=self._device)
        return TokenBatch(tokens.to(self._device).float(), labels, tuple(used), tuple(unreadable))


def weights_hash(module: nn.Module) -> str:
    """The SHA-256 of all of a network's parameters and buffers, by name."""
    found = sha256()
    for name, tensor in module.state_dict().items():
        found.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def token_bytes(config: Config) -> int:
    """The size of the stored tokens of one view of one clip, in bytes, as their file has it.

    Args:
        config: The experiment.

    Raises:
        InputError: A user's own backbone fails, or does not take the config's clips.
    """
    model, data = config.model, config.data
    if model.backbone_source is not None:
        backbone = build_own(model.backbone, model.backbone_source)
        shape = features_of(backbone, name=model.backbone, num_frames=data.num_frames, crop_size=data.crop_size)
    else:
        shape = BACKBONES[model.backbone].channels, *grid_of(model.backbone, data.num_frames, data.crop_size)
    numbers = shape[0] if model.head == "linear" else int(np.prod(shape))
    return HEAD_BYTES + numbers * np.dtype(config.train.token_dtype).itemsize
