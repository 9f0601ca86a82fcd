"""An epoch of training a head on stored tokens, by an epoch with the frozen backbone in it; and tokens in float16.

    python benchmarks/bench_tokens.py --threads 2

R(2+1)D-34 on 32 frames of 112 x 112 pixels, the paper's head, batches of 8. A clip of an epoch with the backbone takes
its forward pass and its share of the head's step; of an epoch on stored tokens, reading them from files and the same
share. What tokens in float16 change is asked of a trained narrow model, on all generated clips. Before that, training
on stored tokens is checked to give the bits of running the same network on the same clips. Writes tokens.json and
tokens.md.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine
from torch import Tensor
from turns import Row, arguments, digits, measure, spread, turns_of, write

from taghead.backbones.folded import inference_backbone
from taghead.config import Config, evolve
from taghead.data.clips import Clip, ClipList, read_clips
from taghead.data.frame_cache import FrameCache
from taghead.data.synthetic import make_dataset
from taghead.data.transforms import batch, draw_centre
from taghead.evaluate import Predictions, predict
from taghead.fit import train_epoch
from taghead.head import grid_tokens
from taghead.machine import Machine
from taghead.model import VideoModel, build_model, load_trained
from taghead.recipes import recipe
from taghead.run import run, token_cache, view_of
from taghead.tokens import TokenBatch, TokenCache, TokenModel, token_bytes

CPU = torch.device("cpu")
NUM_CLASSES = 99
PAPER = evolve(
    recipe("gym99"),
    {"data.num_frames": 32, "model.freeze_backbone": True, "model.pretrained": False, "train.token_views": 0},
)
NARROW = evolve(
    recipe("synthetic"), {"model.freeze_backbone": True, "train.token_views": 0, "train.epochs": 8, "train.lr": 1e-3}
)


class DrawnFrames(FrameCache):
    """Frames drawn at random, where a clip's would be decoded."""

    def get(self, clip: Clip) -> Any:  # noqa: D102
        random = np.random.default_rng(clip.label)
        return random.integers(0, 256, (self.num_frames, self.short_side, self.short_side, 3), np.uint8)


@dataclass(frozen=True)
class Setting:
    """A model, clips, and where their tokens are."""

    config: Config
    model: VideoModel
    clips: list[Clip]
    cache: TokenCache

    def batches(self) -> Iterable[TokenBatch]:
        """Of all clips, in their order."""
        return self.cache.batches(self.clips, view=None, batch_size=self.config.train.batch_size)


def setting(folder: Path, config: Config, *, num_clips: int) -> Setting:
    torch.manual_seed(0)
    model = build_model(config, NUM_CLASSES)
    frames = DrawnFrames(None, num_frames=config.data.num_frames, short_side=config.data.short_side)
    clips = []
    for number in range(num_clips):
        (path := folder / f"clip {number}").write_text("")
        clips.append(Clip(path.name, path, number, "train"))
    cache = token_cache(config, model, frames=frames, machine=Machine(data_root=folder, cache=folder / "cache"))
    return Setting(config, model, clips, cache)


def trained(model: VideoModel, batches: Iterable[TokenBatch], config: Config) -> dict[str, Tensor]:
    """The head after an epoch, from the same weights each time."""
    torch.manual_seed(1)
    head = TokenModel(build_model(evolve(config, {"model.backbone": "r2plus1d_narrow"}), NUM_CLASSES).head)
    head.head.load_state_dict(model.head.state_dict())
    optimizer = torch.optim.Adam(head.parameters(), lr=config.train.lr, fused=True)
    train_epoch(head, optimizer, batches, epoch=0, device=CPU, precision="float32")
    return head.head.state_dict()


def check(folder: Path) -> None:
    """Stops where training on stored tokens has not the bits of running the network on the same clips."""
    config = evolve(
        PAPER,
        {"model.backbone": "r2plus1d_narrow", "data.num_frames": 8, "data.crop_size": 32, "data.short_side": 36},
    )
    here = setting(folder, config, num_clips=16)
    network, view = inference_backbone(here.model.backbone), view_of(config, device=CPU)
    frames = DrawnFrames(None, num_frames=8, short_side=36)
    made = []
    for at in range(0, len(here.clips), 8):
        group = here.clips[at : at + 8]
        with torch.no_grad():
            pixels = [batch([frames.get(clip)], [draw_centre((36, 36), crop_size=32)], **view) for clip in group]
            tokens = torch.cat([grid_tokens(network(one)) for one in pixels]).contiguous()
        made.append(TokenBatch(tokens, torch.tensor([clip.label for clip in group]), tuple(group), ()))
    ours, theirs = trained(here.model, here.batches(), config), trained(here.model, made, config)
    if not all(torch.equal(ours[name], theirs[name]) for name in ours):
        raise SystemExit("training on stored tokens has other bits than running the network on the same clips")


def epochs(folder: Path, *, num_clips: int, seen: int, turns: int) -> tuple[list[float], dict[str, list[float]]]:
    """How many times as fast an epoch on stored tokens is, in each turn; and the seconds of a clip."""
    here = setting(folder, PAPER, num_clips=num_clips)
    shape = (512, *(4, 7, 7))
    for clip in here.clips:  # what the numbers are changes no time: the backbone is not run for each clip here
        tokens = np.random.default_rng(clip.label).random((shape[1], shape[2] * shape[3], shape[0]), np.float32)
        here.cache._folder.write(*here.cache._key(clip, None), tokens)
    memory = list(here.batches())
    head = TokenModel(here.model.head)
    optimizer = torch.optim.Adam(head.parameters(), lr=PAPER.train.lr, fused=True)
    clip = torch.randn(seen, 3, PAPER.data.num_frames, PAPER.data.crop_size, PAPER.data.crop_size)

    def forward() -> None:
        with torch.no_grad():
            here.model.backbone(clip)

    def step(batches: Iterable[TokenBatch]) -> None:
        train_epoch(head, optimizer, batches, epoch=0, device=CPU, precision="float32")

    ways: dict[str, Callable[[], object]] = {
        "forward": forward,
        "step": lambda: step(memory),
        "stored": lambda: step(here.batches()),
    }
    clips = {"forward": seen, "step": num_clips, "stored": num_clips}
    times = {name: [one / clips[name] for one in taken] for name, taken in measure(ways, turns=turns).items()}
    whole = zip(times["forward"], times["step"], times["stored"], strict=True)
    return [(backbone + head_step) / stored for backbone, head_step, stored in whole], times


def halves(folder: Path, *, size: Any) -> tuple[float, list[str], int, float]:
    """By how much tokens in float16 move logits, which predictions they flip, of how many clips, and their Top-1."""
    root = make_dataset(folder / "clips", size=size, kind="fine", workers=1)
    place = Machine(data_root=root, cache=folder / "cache", threads=torch.get_num_threads())
    record = run(NARROW, seed=0, machine=place, folder=folder / "trial", keep=("weights",))
    model, clips = load_trained(folder / "trial").model, read_clips("synthetic", root)
    single, half = (evaluated(model, clips, dtype, place) for dtype in ("float32", "float16"))
    moved = float(np.abs(single.logits - half.logits).max())
    flips = [
        f"{name}: {clips.classes[before]} -> {clips.classes[after]}"
        for name, before, after in zip(single.ids, single.logits.argmax(1), half.logits.argmax(1), strict=True)
        if before != after
    ]
    return moved, flips, len(single.ids), record.metrics["top1"]


def evaluated(model: VideoModel, clips: ClipList, dtype: str, place: Machine) -> Predictions:
    config = evolve(NARROW, {"train.token_dtype": dtype})
    frames = FrameCache(place.cache, num_frames=config.data.num_frames, short_side=config.data.short_side)
    cache = token_cache(config, model, frames=frames, machine=place)
    batches = cache.evaluation_batches(clips.clips)
    return predict(TokenModel(model.head), batches, num_classes=len(clips.classes), device=CPU)


def main() -> None:
    args: argparse.Namespace = arguments(__doc__, turns=7, quick_turns=3).parse_args()
    torch.set_num_threads(args.threads)
    where = machine("torch", threads=args.threads)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("check", "epochs", "halves"):
            (Path(folder) / name).mkdir()
        check(Path(folder) / "check")
        num_clips, seen = (16, 1) if args.quick else (64, 8)
        ratios, times = epochs(Path(folder) / "epochs", num_clips=num_clips, seen=seen, turns=turns_of(args))
        moved, flips, of, top1 = halves(Path(folder) / "halves", size="tiny" if args.quick else "small")
    size = {dtype: token_bytes(evolve(PAPER, {"train.token_dtype": dtype})) for dtype in ("float32", "float16")}
    rows = [
        Row(
            "training a head on stored tokens, by the clip of an epoch (R(2+1)D-34, 32 x 112 x 112)",
            "an epoch with the frozen backbone in it", spread(ratios), "speed", 90, "at least",
        ),
        Row(
            f"tokens in float16: the most that a logit moves (a trained narrow model, {of} clips; {len(flips)} "
            "predictions flip)",
            "tokens in float32", spread([moved]), "number", 1e-2, "at most",
        ),
    ]  # fmt: skip
    ms = {name: digits(1e3 * spread(taken).median) for name, taken in times.items()}
    text = (
        f"# Stored tokens\n\n{where['date']}, {where['cpu']}, {where['cores']} cores, {where['threads']} thread(s), "
        f"load {where['load_before']} before; torch {where['torch']}. {num_clips} clips, batches of "
        f"{PAPER.train.batch_size}, the backbone on {seen} clip(s) at once; {turns_of(args)} turns.\n\n"
        f"Milliseconds a clip (medians): the backbone's forward pass {ms['forward']}, the head's step {ms['step']}, "
        f"with reading stored tokens {ms['stored']}. Disk a clip and view: {size['float32']:,} bytes in float32, "
        f"{size['float16']:,} in float16.\n\n"
        f"Predictions that float16 flips (of {of}; Top-1 on the test split {100 * top1:.1f} %): "
        f"{'; '.join(flips) or 'none'}.\n"
    )
    more = {"seconds_per_clip": times, "bytes_per_clip": size, "moved": moved, "flips": flips}
    write("tokens", rows, out=args.out, machine=where, text=text, **more)


if __name__ == "__main__":
    main()
