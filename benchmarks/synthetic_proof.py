"""Shows that the synthetic fine classes are what they claim: frames without their order cannot tell twins apart.

    python benchmarks/synthetic_proof.py --data data/proof --weights taghead/backbones/r2plus1d_narrow.safetensors

Twins are the classes of a group that time alone tells apart (a turn to the left or to the right; two phases in either
order; one hop or two). Networks are trained on all classes, then asked for each test clip which of two twins it is:
chance is 1/2. A small 2D network sees single frames, and its scores for a clip are the mean over frames; so does the
pre-trained video network, each frame standing still, which knows poses and so tells pairs apart better than one that
starts from nothing; then the video network sees the frames of every clip shuffled; and, as the control, in their order.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from scipy.stats import binomtest
from torch import Tensor, nn

from taghead.backbones.r2plus1d import r2plus1d_narrow
from taghead.data.clips import read_clips
from taghead.data.decode import sample_frames
from taghead.data.synthetic import make_dataset
from taghead.data.transforms import batch, draw_centre, draw_train
from taghead.weights import load_backbone

SHORT_SIDE, CROP, NUM_FRAMES, BATCH = 54, 48, 16, 16
Frames = UInt8[np.ndarray, "F h w 3"]


class FrameNet(nn.Module):
    """A small 2D network; a clip's logits are the mean over its frames."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        widths = (3, 32, 64, 96, 128)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], num_classes))

    def forward(self, clip: Float[Tensor, "B 3 F h w"]) -> Float[Tensor, "B K"]:
        """Logits of clips, which in training have one frame each: it never learns from a clip as a whole."""
        logits = self.layers(clip.transpose(1, 2).flatten(0, 1))
        return logits.unflatten(0, (len(clip), -1)).mean(1)


class VideoNet(nn.Module):
    """The narrow R(2+1)D with a linear head."""

    def __init__(self, num_classes: int, weights: Path | None) -> None:
        super().__init__()
        self.backbone = r2plus1d_narrow()
        if weights:
            load_backbone(self.backbone, weights)
        self.classifier = nn.Linear(self.backbone.channels, num_classes)

    def forward(self, clip: Float[Tensor, "B 3 F h w"]) -> Float[Tensor, "B K"]:
        """Logits of clips."""
        return self.classifier(self.backbone(clip).mean((2, 3, 4)))


class StillNet(VideoNet):
    """The same network on each frame by itself, standing still; a clip's logits are the mean over its frames."""

    def forward(self, clip: Float[Tensor, "B 3 F h w"]) -> Float[Tensor, "B K"]:
        """Logits of clips, which in training have one frame each."""
        still = clip.transpose(1, 2).flatten(0, 1)[:, :, None].expand(-1, -1, 4, -1, -1)
        return super().forward(still).unflatten(0, (len(clip), -1)).mean(1)


def shuffled(frames: Frames, number: int) -> Frames:
    return frames[np.random.default_rng(number).permutation(len(frames))]


def clips_of(frames: list[Frames], order: list[int], *, seed: int | None = None, epoch: int = 0) -> Iterator[Tensor]:
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        sizes = [frames[i].shape[1:3] for i in part]
        if seed is None:
            draws = [draw_centre(size, crop_size=CROP) for size in sizes]
        else:
            draws = [
                draw_train(size, seed=seed, epoch=epoch, clip_id=str(i), crop="random", crop_size=CROP, flip=0.0)
                for i, size in zip(part, sizes, strict=True)
            ]
        yield batch([frames[i] for i in part], draws, crop_size=CROP, mean=(0.45,) * 3, std=(0.225,) * 3)


def train(model: nn.Module, frames: list[Frames], labels: Int[Tensor, " n"], *, epochs: int, lr: float) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        model.train()
        order = torch.randperm(len(frames)).tolist()
        for i, clips in enumerate(clips_of(frames, order, seed=0, epoch=epoch)):
            loss = nn.functional.cross_entropy(model(clips), labels[order[i * BATCH : (i + 1) * BATCH]])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def report(
    name: str, model: nn.Module, frames: list[Frames], labels: Int[Tensor, " n"], twin: Int[Tensor, " K"]
) -> None:
    logits = torch.cat([model(clips) for clips in clips_of(frames, list(range(len(frames))))])
    rows = torch.arange(len(labels))
    right = logits[rows, labels] > logits[rows, twin[labels]]
    guess = logits.argmax(1)
    group = ((guess == labels) | (guess == twin[labels])).float().mean()
    low, high = binomtest(int(right.sum()), len(right), 0.5).proportion_ci(0.95, method="wilson")
    top1 = (guess == labels).float().mean()
    print(
        f"{name:31s} n {len(labels)}: which twin {100 * right.float().mean():5.1f} % "
        f"(95 % interval {100 * low:.1f} to {100 * high:.1f}, chance 50), "
        f"which pair {100 * group:5.1f} % (chance {200 / len(twin):.1f}), Top-1 {100 * top1:5.1f} %",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--size", default="small", choices=("tiny", "small", "medium"))
    parser.add_argument("--weights", type=Path, help="for the video network; without them it starts from nothing")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    make_dataset(args.data, size=args.size, kind="fine")
    clips = read_clips("synthetic", args.data)
    groups = json.loads((args.data / "synthetic.json").read_text())["time_alone"]
    other = {name: pair[1 - i] for pair in groups for i, name in enumerate(pair)}
    twin = torch.tensor([clips.classes.index(other[name]) for name in clips.classes])
    parts = {split: clips.split(split) for split in ("train", "test")}
    labels = {split: torch.tensor([clip.label for clip in part]) for split, part in parts.items()}
    frames = {
        split: [sample_frames(clip.path, NUM_FRAMES, short_side=SHORT_SIDE) for clip in part]
        for split, part in parts.items()
    }
    mixed = {split: [shuffled(f, i) for i, f in enumerate(part)] for split, part in frames.items()}
    single = [f[i : i + 1] for f in frames["train"] for i in range(NUM_FRAMES)]
    num = len(clips.classes)
    trials: list[tuple[str, Callable[[], nn.Module], list[Frames], list[Frames]]] = [
        ("2D network, single frames", lambda: FrameNet(num), single, frames["test"]),
        ("video network, single frames", lambda: StillNet(num, args.weights), single, frames["test"]),
        ("video network, frames shuffled", lambda: VideoNet(num, args.weights), mixed["train"], mixed["test"]),
        ("video network, frames in order", lambda: VideoNet(num, args.weights), frames["train"], frames["test"]),
    ]
    for name, make, seen, asked in trials:
        of_seen = labels["train"].repeat_interleave(len(seen) // len(labels["train"]))
        model = train(make(), seen, of_seen, epochs=args.epochs, lr=1e-3)
        report(name, model, asked, labels["test"], twin)


if __name__ == "__main__":
    main()
