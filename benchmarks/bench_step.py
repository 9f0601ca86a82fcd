"""A training step end to end, narrow and full-size, against the bare backbone with PyTorch's encoder and dense Eq. 2.

    python benchmarks/bench_step.py --threads 2

Ours is `taghead.fit.train_epoch` on one batch that lies ready; both have Adam (fused). Logits and gradients are
compared first. Memory is the growth of a fresh process's resident memory at its peak, over what it holds before the
model is built, and so all of it: weights, gradients, Adam's state, activations, and what the convolutions work with.
Writes step.json and step.md.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from machine import machine
from plain_head import PlainHead, copied, distance
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from turns import Row, arguments, digits, measure, ratio, spread, turns_of, write

from taghead.config import Config, evolve
from taghead.fit import train_epoch
from taghead.head import TAGHead
from taghead.memory import keep_freed_memory
from taghead.model import VideoModel, build_model
from taghead.recipes import recipe

CLASSES = 99
STEPS = 2  # of a fresh process: the first makes Adam's state, which the second has beside its activations
LOGITS, GRADIENTS = 1e-5, 1e-4  # relative; batch norm and ReLU enlarge rounding on its way through the backbone
CPU = torch.device("cpu")
NARROW, FULL = "narrow", "R(2+1)D-34"


@dataclass(frozen=True)
class Size:
    """A model and its batch."""

    name: str
    config: Config
    clips: int

    @property
    def told(self) -> str:
        """As the table names it."""
        data = self.config.data
        return f"{self.name}, batch {self.clips}, {data.num_frames} x {data.crop_size} x {data.crop_size}"


def size_of(name: str, *, quick: bool) -> Size:
    """The small recipe's, or the paper's at 32 frames of 112 x 112; smaller clips of the latter if quick."""
    if name == NARROW:
        config = recipe("synthetic")
        return Size(name, config, config.train.batch_size)
    config = evolve(recipe("haa500"), {"model.pretrained": False})
    small = {"data.num_frames": 16, "data.short_side": 48, "data.crop_size": 48}
    return Size(name, evolve(config, small) if quick else config, 1)


def batch(size: Size) -> SimpleNamespace:
    """What `train_epoch` reads of a batch."""
    torch.manual_seed(1)
    data = size.config.data
    frames = torch.randn(size.clips, 3, data.num_frames, data.crop_size, data.crop_size)
    return SimpleNamespace(frames=frames, labels=torch.randint(CLASSES, (size.clips,)), ids=range(size.clips))


def ours(size: Size) -> VideoModel:
    torch.manual_seed(0)
    return build_model(size.config, CLASSES)


def plain(model: VideoModel) -> nn.Sequential:
    """The same backbone, and the peer's head, with the same weights."""
    head = model.head
    assert isinstance(head, TAGHead)
    _, time, height, width = features_of(model)
    peer = PlainHead(head.channels, (time, height, width), CLASSES, ffn_dim=ffn_dim(head))
    copied(head, peer)
    return nn.Sequential(deepcopy(model.backbone), peer)


def features_of(model: VideoModel) -> tuple[int, int, int, int]:
    """(C, T, H, W); the heads' grids are square."""
    head: Any = model.head
    time, sites = head.grid
    side = round(sites**0.5)
    return head.channels, time, side, side


def ffn_dim(head: TAGHead) -> int:
    return head.get_submodule("transformer.layers.0.linear1").out_features  # type: ignore[return-value]


def adam(model: nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), lr=1e-5, fused=True)


def our_step(model: VideoModel, shown: Any) -> Callable[[], object]:
    optimizer = adam(model)
    return lambda: train_epoch(model, optimizer, [shown], epoch=0, device=CPU, precision="float32")


def peer_step(model: nn.Module, shown: Any) -> Callable[[], object]:
    optimizer = adam(model)
    model.train()

    def run() -> None:
        loss = cross_entropy(model(shown.frames), shown.labels)
        loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


def check(model: VideoModel, peer: nn.Sequential, shown: Any) -> tuple[float, float]:
    """Stops where logits or gradients differ by more than rounding; with the norms' running statistics, as they are."""
    found: list[tuple[Tensor, dict[str, Tensor]]] = []
    for one in (model.eval(), peer.eval()):
        logits = one(shown.frames)
        cross_entropy(logits, shown.labels).backward()
        parts = (one.backbone, one.head) if isinstance(one, VideoModel) else tuple(one)
        gradients = {
            f"{number}.{name}": parameter.grad.clone()
            for number, part in enumerate(parts)
            for name, parameter in part.named_parameters()
            if parameter.grad is not None
        }
        one.zero_grad()
        found.append((logits.detach(), gradients))
    (mine, my_gradients), (its, its_gradients) = found
    assert my_gradients.keys() == its_gradients.keys()
    apart = distance(mine, its), max(distance(my_gradients[name], its_gradients[name]) for name in its_gradients)
    if apart[0] > LOGITS or apart[1] > GRADIENTS:
        raise SystemExit(f"not equal: logits differ by {apart[0]:.1e}, gradients by {apart[1]:.1e}")
    return apart


def child(order: dict[str, Any]) -> None:
    """A fresh process: some steps of one way; prints bytes at the peak and seconds of the last step."""
    torch.set_num_threads(order["threads"])
    size = size_of(order["size"], quick=order["quick"])
    if order["keep"]:
        keep_freed_memory()
    shown = batch(size)
    nn.functional.conv3d(torch.zeros(1, 1, 3, 3, 3), torch.zeros(1, 1, 3, 3, 3))  # loads the code that convolves
    model = ours(size)
    step = our_step(model, shown) if order["way"] == "ours" else peer_step(plain_alone(model), shown)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is held
    for _ in range(STEPS):
        step()
    print(json.dumps({"bytes": _status("VmHWM") - before}))


def plain_alone(model: VideoModel) -> nn.Sequential:
    """As `plain`, but with no second backbone beside it."""
    peer = plain(model)
    peer[0] = model.backbone
    return peer


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def peaks(size: Size, *, turns: int, threads: int, quick: bool) -> dict[str, list[float]]:
    """Bytes of each way in each turn, each in a process of its own."""
    ways = ("peer", "ours", "ours, memory kept") if size.name == NARROW else ("peer", "ours")
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(turns):
        for way, taken in found.items():
            order = {
                "size": size.name,
                "quick": quick,
                "threads": threads,
                "way": way[:4],
                "keep": way.endswith("kept"),
            }
            command = [sys.executable, __file__, "--child", json.dumps(order)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            taken.append(json.loads(done.stdout.splitlines()[-1])["bytes"])
    return found


def of_size(size: Size, *, turns: int, args: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    model, shown = ours(size), batch(size)
    peer = plain(model)
    logits, gradients = check(model, peer, shown)
    times = measure({"peer": peer_step(peer, shown), "ours": our_step(model, shown)}, turns=turns)
    del model, peer
    held = peaks(size, turns=1 if args.quick else 3, threads=args.threads, quick=args.quick)
    name = "bare backbone + `nn.TransformerEncoder` + dense propagation"
    rows = [
        Row(f"a training step, {size.told}", name, ratio(times["ours"], times["peer"]), "time", 1.0, "at most"),
        Row(
            f"its memory, {size.told}", f"{name}, its own", ratio(held["ours"], held["peer"]), "number", 1.05, "at most"
        ),
    ]
    for kept in (taken for way, taken in held.items() if way.endswith("kept")):
        rows.append(
            Row(
                f"its memory with `keep_freed_memory`, {size.told}",
                f"{name}, its own",
                ratio(kept, held["peer"]),
                "number",
            )
        )
    apart = {"logits_differ": logits, "gradients_differ": gradients}
    return rows, {"size": size.told, "seconds": times, "bytes": held, **apart}


def page(where: dict[str, Any], found: list[dict[str, Any]]) -> str:
    lines = [
        "# A training step, end to end",
        "",
        f"{where['date']}, {where['cpu']}, {where['cores']} cores, {where['threads']} thread(s), load "
        f"{where['load_before']} before; torch {where['torch']}; float32.",
        "",
        "| model and batch | ours, ms | peer, ms | ours, MB | peer, MB | logits differ | gradients differ, at most |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        cells = [one["size"]]
        cells += [digits(1e3 * spread(one["seconds"][way]).median) for way in ("ours", "peer")]
        cells += [digits(spread(one["bytes"][way]).median / 1e6) for way in ("ours", "peer")]
        cells += [f"{one['logits_differ']:.1e}", f"{one['gradients_differ']:.1e}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = arguments(__doc__, turns=9, quick_turns=3)
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child)
        return
    torch.set_num_threads(args.threads)
    where = machine("torch", threads=torch.get_num_threads())
    turns = turns_of(args)
    made = [
        of_size(size_of(NARROW, quick=args.quick), turns=turns, args=args),
        of_size(size_of(FULL, quick=args.quick), turns=2 if args.quick else 3, args=args),
    ]
    found = [one for _, one in made]
    rows = [row for rows, _ in made for row in rows]
    write("step", rows, out=args.out, machine=where, text=page(where, found), turns=turns, sizes=found)


if __name__ == "__main__":
    main()
