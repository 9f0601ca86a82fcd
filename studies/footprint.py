"""What room a launch takes, before it runs: disk, and the share of a GPU of each trial.

The sizes of files come from the shapes of models, the memory of a GPU from one training step that is measured now.
"""

import math
import shutil
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from studies.estimate import Clips, CountClips, Probe, cost_key, device_name, token_views
from studies.store import Store
from studies.trial import Trial
from taghead.config import Config, flatten, stores_tokens
from taghead.errors import InputError

ASPECT = 4 / 3  # assumed of the clips: width by height
CONTEXT_BYTES = 6 * 2**30 // 10  # of GPU memory that a process takes before its first tensor
HEAD_ROOM = 1.1  # on the measured peak: fragments, and batches of other sizes
SMALL_FILES = 8 * 2**10  # bytes: record and history, a block of the disk each


class Sizes(Protocol):
    """What a trial's files weigh; see `taghead.probe.FileSizes`."""

    @property
    def weights_bytes(self) -> int:
        """Of the weights."""

    @property
    def checkpoint_bytes(self) -> int:
        """Of the state to resume from."""

    @property
    def embedding_channels(self) -> int:
        """D of the pooled vector."""

    @property
    def time_steps(self) -> int | None:
        """T of the frame means; None where there are none."""


@dataclass(frozen=True)
class Disk:
    """What a launch writes, in bytes, and what is free.

    Attributes:
        root: The results folder.
        kept: For good: predictions and what a study keeps, of all trials that are left.
        checkpoints: At once, of the trials that run at one time, each twice while a new one is written beside the old.
        free: In the results folder.
        cache: The folder for decoded frames and stored tokens, or None.
        frames: Of all clips' decoded frames, less what that folder holds already, of whatever clips.
        cache_free: In that folder.
        tokens: Of all clips' stored tokens, likewise; 0 without a folder.
        token_clip: Of one view of one clip, the least and the most; None where no trial stores tokens.
    """

    root: Path
    kept: int
    checkpoints: int
    free: int
    cache: Path | None = None
    frames: int = 0
    cache_free: int = 0
    tokens: int = 0
    token_clip: tuple[int, int] | None = None

    def lines(self) -> list[str]:
        """Lines for people; one more, a warning, where it does not fit."""
        lines = [
            f"disk: {amount(self.kept)} to keep, and up to {amount(self.checkpoints)} of checkpoints on the way; "
            f"{amount(self.free)} free in {self.root}"
        ]
        results, cached, together = self.kept + self.checkpoints, self.frames + self.tokens, 0
        what = "frames and tokens" if self.tokens else "frames"
        if self.cache is not None:
            lines.append(
                f"frames: up to {amount(self.frames)} more, taking clips as 4:3; {amount(self.cache_free)} free in "
                f"{self.cache}"
            )
            together = cached if _disk(self.cache) == _disk(self.root) else 0
            if not together and cached > self.cache_free:
                lines.append(f"warning: the {what} do not fit into {self.cache}: name another --cache.")
        if self.token_clip is not None:
            lines.append(f"tokens: {self._tokens_line(*self.token_clip)}")
        if results + together > self.free:
            what = (f"results, {what}" if self.tokens else "results and frames") if together else "the results"
            lines.append(f"warning: {what} do not fit: {amount(results + together)} of {amount(self.free)} free.")
        return lines

    def _tokens_line(self, least: int, most: int) -> str:
        each = amount(most) if least == most else f"{amount(least)} to {amount(most)}"
        if self.cache is None:
            return f"{each} a clip and view, in memory as far as it goes; name --cache to share them among trials"
        return f"{each} a clip and view, up to {amount(self.tokens)} more in {self.cache}"


def disk(
    todo: Sequence[Trial],
    *,
    store: Store,
    clips: CountClips,
    slots: int | None,
    cache: Path | None,
    sizes: Callable[[Config, int], Sizes] | None = None,
) -> Disk:
    """What trials write that are left.

    Args:
        todo: Trials with something left to do.
        store: Where to.
        clips: Counts a config's clips.
        slots: How many run at once; None: taken for one.
        cache: The folder for decoded frames and stored tokens, or None for none.
        sizes: Of a config's files at K classes; None asks the shapes of its model.
    """
    sizes = sizes or _sizes
    known: dict[tuple[str, int], Sizes] = {}
    kept, checkpoints, frames = 0, [], {}
    tokens: dict[Hashable, int] = {}  # bytes
    token_clips = []
    for trial in todo:
        there, data = clips(trial.config), trial.config.data
        key = (cost_key(flatten(trial.config)), there.num_classes)
        if key not in known:
            known[key] = sizes(trial.config, there.num_classes)
        need = store.need(trial.trial_id, trial.keep)
        kept += _kept_bytes(trial, there, known[key], evaluated=need == "evaluate")
        checkpoints.append(2 * known[key].checkpoint_bytes if need in ("train", "again") else 0)
        pixels = data.short_side * round(ASPECT * data.short_side)
        number = there.train + there.val + there.test
        frames[data.dataset, data.num_frames, data.short_side] = number * data.num_frames * pixels * 3
        if stores_tokens(trial.config):
            token_clips.append(_token_bytes(trial.config))
            for view, count in token_views(trial, there).items():
                tokens[view] = max(tokens.get(view, 0), count * token_clips[-1])
    return Disk(
        root=store.root,
        kept=kept,
        checkpoints=sum(sorted(checkpoints, reverse=True)[: slots or 1]),
        free=_free(store.root),
        cache=cache,
        frames=max(0, sum(frames.values()) - _held(cache, ".frames")) if cache else 0,
        cache_free=_free(cache) if cache else 0,
        tokens=max(0, sum(tokens.values()) - _held(cache, ".tokens")) if cache and tokens else 0,
        token_clip=(min(token_clips), max(token_clips)) if token_clips else None,
    )


def _sizes(config: Config, num_classes: int) -> Sizes:
    from taghead.probe import file_sizes

    return file_sizes(config, num_classes=num_classes)


def _token_bytes(config: Config) -> int:
    from taghead.tokens import token_bytes

    return token_bytes(config)


def _kept_bytes(trial: Trial, clips: Clips, sizes: Sizes, *, evaluated: bool) -> int:
    """Of one trial, in its folder for good; where it is only evaluated once more, what that adds."""
    clip = 4 * clips.id_length + 8  # NumPy's text takes 4 bytes a character; the label
    vectors = {
        "embeddings": sizes.embedding_channels,
        "frame_means": sizes.embedding_channels * sizes.time_steps if sizes.time_steps else 0,
    }
    total = sum(clips.test * (clip + 4 * width) for name, width in vectors.items() if name in trial.keep)
    if not evaluated:
        total += SMALL_FILES + clips.test * (clip + 4 * clips.num_classes)
        total += sizes.weights_bytes if "weights" in trial.keep else 0
    return total


def _there(path: Path) -> Path:
    """A folder, or the nearest one above it that exists."""
    path = path.absolute()
    return next(one for one in (path, *path.parents) if one.exists())


def _free(path: Path) -> int:
    return shutil.disk_usage(_there(path)).free


def _held(cache: Path, suffix: str) -> int:
    return sum(path.stat().st_size for path in cache.glob(f"*{suffix}"))


def _disk(path: Path) -> int:
    return _there(path).stat().st_dev


def gpu_shares(
    trials: Sequence[Trial], *, clips: CountClips, peak_bytes: Callable[[Config, int], int], gpu_bytes: int
) -> dict[str, float]:
    """The fraction of a GPU that each trial takes, by trial id: one n-th of it, where n like it fit side by side.

    A trial's process takes its peak with `HEAD_ROOM` and a context of `CONTEXT_BYTES`. Fractions are rounded down to
    Ray's four places, and what several processes take never sums to more than there is.

    Args:
        trials: Which ones.
        clips: Counts a config's clips.
        peak_bytes: Of one training step of a config at K classes; asked once for each kind of model.
        gpu_bytes: The memory of one GPU.

    Raises:
        InputError: A trial takes more than one GPU has.
    """
    known: dict[str, float] = {}
    shares = {}
    for trial in trials:
        key = cost_key(flatten(trial.config))
        if key not in known:
            peak = peak_bytes(trial.config, clips(trial.config).num_classes)
            known[key] = _share(trial, HEAD_ROOM * peak + CONTEXT_BYTES, gpu_bytes)
        shares[trial.trial_id] = known[key]
    return shares


def _share(trial: Trial, needed: float, gpu_bytes: int) -> float:
    if needed > gpu_bytes:
        raise InputError(
            f"a trial must fit into one GPU, but {trial.label} takes {needed / 2**30:.1f} GiB of "
            f"{gpu_bytes / 2**30:.1f} GiB; lower train.batch_size, or set train.precision=bfloat16."
        )
    return math.floor(1e4 / math.floor(gpu_bytes / needed)) / 1e4


def measured_shares(trials: Sequence[Trial], *, clips: CountClips, probe: Probe) -> dict[str, float]:
    """`gpu_shares` from steps that are measured on this machine's GPU now.

    Args:
        trials: Which ones.
        clips: Counts a config's clips.
        probe: As `measure` gives it, on ``cuda``.

    Raises:
        InputError: There is no such GPU here, or a trial does not fit into it.
    """
    if device_name("cuda") is None:
        raise InputError(
            "--gpus-per-trial auto measures a training step on a GPU of this machine, and there is none; give a number."
        )
    import torch

    def peak(config: Config, num_classes: int) -> int:
        step: Any = probe(config, num_classes)
        return step.peak_memory_bytes

    memory = torch.cuda.get_device_properties("cuda").total_memory - CONTEXT_BYTES  # which this process holds by now
    return gpu_shares(trials, clips=clips, peak_bytes=peak, gpu_bytes=memory)


def amount(size: int) -> str:
    """Bytes in the unit that people would use: ``340 MB``, ``1.2 GB``."""
    for unit, power in (("GB", 9), ("MB", 6)):
        if size >= 10**power:
            number = size / 10**power
            return f"{number:.1f} {unit}" if number < 10 else f"{number:,.0f} {unit}"
    return f"{math.ceil(size / 1000)} kB"
