"""Speed and memory of `inference_backbone` beside the backbone as it is, for every backbone, and the floor.

    python benchmarks/bench_backbone.py --threads 2

Random weights, and norms that are no identity. The backbone, the network made of it and a float32 matrix product of
2048 x 2048 take turns within one run; the product's rate gives the floor: the time of the backbone's multiply-adds
alone. Before that the features must agree to 1e-5: the norm of the difference by the norm of the backbone's. Peak
memory is that of one forward above what was there before it, each in a process of its own. Writes backbone.json and
backbone.md.
"""

import ctypes
import gc
import multiprocessing
import statistics
from functools import lru_cache
from pathlib import Path

import torch
from machine import machine
from torch import Tensor, nn
from turns import Row, arguments, digits, measure, ratio, spread, turns_of, write

from taghead.backbones import BACKBONES
from taghead.backbones.folded import inference_backbone
from taghead.complexity import count_backbone

MAIN = "r2plus1d_34"
# Frames and pixels: of the paper or the public weights; and reduced.
SIZES = {
    "r2plus1d_34": ((32, 112), (8, 112)), "r2plus1d_18": ((16, 112), (8, 64)), "r3d_18": ((16, 112), (8, 64)),
    "i3d_r50": ((8, 224), (8, 112)), "slow_r50": ((8, 224), (8, 112)), "csn_r101": ((32, 224), (16, 64)),
    "slowfast_r50": ((32, 224), (16, 64)), "x3d_m": ((16, 224), (8, 64)), "ir_csn_152": ((32, 224), (16, 64)),
    "r2plus1d_narrow": ((16, 48), (16, 48)),
}  # fmt: skip
EMULATED = (8, 32)  # of bfloat16 where the processor has no instructions for it
TOLERANCE, HALF_TOLERANCE = 1e-5, 1e-2
SIDE = 2048  # of the matrices whose product gives the rate
CLASSES, PREDICTED = 500, (8, 32)  # classes of a random classifier; predicted clips, with --quick and without


@lru_cache(maxsize=1)
def built(name: str) -> nn.Module:
    """In eval mode, its norms with statistics and weights like those of a trained network."""
    torch.manual_seed(0)
    backbone = BACKBONES[name]().eval().requires_grad_(False)
    for part in backbone.modules():
        if isinstance(part, nn.BatchNorm3d) and part.running_mean is not None and part.running_var is not None:
            part.running_mean.uniform_(-0.2, 0.2)
            part.running_var.uniform_(0.5, 1.5)
            part.weight.uniform_(0.5, 1.0)
            part.bias.uniform_(-0.1, 0.1)
    return backbone


def clips_of(size: tuple[int, int], clips: int = 1) -> Tensor:
    frames, pixels = size
    return torch.randn(clips, 3, frames, pixels, pixels, generator=torch.Generator().manual_seed(1))


def distance(ours: Tensor, wanted: Tensor) -> float:
    """Norm of the difference of all features by the norm of those wanted."""
    return ((ours - wanted).norm() / wanted.norm()).item()


def compare(name: str, size: tuple[int, int], *, turns: int, precision: str = "float32") -> dict:
    """Seconds of each way, turn by turn, and how far the features are apart; stops where they are too far."""
    backbone = built(name)
    network, clip = inference_backbone(backbone, precision=precision), clips_of(size)
    apart = distance(network(clip), backbone(clip))
    if apart > (limit := TOLERANCE if precision == "float32" else HALF_TOLERANCE):
        raise SystemExit(f"{name}: features must agree to {limit:g}, but differ by {apart:.1e}")
    matrix = torch.randn(SIDE, SIDE)
    ways = {"eager": lambda: backbone(clip), "ours": lambda: network(clip), "product": lambda: matrix @ matrix}
    taken = measure(ways, turns=turns)
    work = count_backbone(name, num_frames=size[0], crop_size=size[1]).multiply_adds
    taken["floor"] = [work / SIDE**3 * one for one in taken["product"]]
    return {
        "backbone": name, "size": size, "precision": precision, "threads": torch.get_num_threads(),
        "distance": apart, "multiply_adds": work, "seconds": taken,
    }  # fmt: skip


def predictions(name: str, size: tuple[int, int], *, clips: int) -> dict:
    """Top-1 of float32 and bfloat16 under one random linear classifier on standardised mean features."""
    backbone, shown = built(name), clips_of(size, clips).split(1)
    half = inference_backbone(backbone, precision="bfloat16")
    wanted, ours = (torch.cat([net(clip).mean((2, 3, 4)) for clip in shown]) for net in (backbone, half))
    # All random clips look alike to a random network: what tells them apart is scaled up, rounding with it.
    mean, std = wanted.mean(0), wanted.std(0)
    weight = torch.randn(CLASSES, wanted.shape[1])
    before, after = (((pooled - mean) / std @ weight.T).argmax(1) for pooled in (wanted, ours))
    return {"backbone": name, "clips": clips, "flipped": (before != after).nonzero().flatten().tolist()}


def peak(name: str, size: tuple[int, int], threads: int, *, ours: bool) -> int:
    """Bytes of a forward at its peak above those before it (Linux, glibc); weights and clip are not in it."""
    torch.set_num_threads(threads)
    network, clip = built(name), clips_of(size)
    if ours:
        network = inference_backbone(network)
    with torch.inference_mode():
        network(clips_of((BACKBONES[name].temporal_stride, 32)))  # what is loaded or allocated once
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # else the forward takes from what the backbone's weights left behind
        before = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        network(clip)
    return _resident("VmHWM") - before


def _resident(what: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(what))


def peaks(name: str, size: tuple[int, int], threads: int) -> dict[str, int]:
    """Of the backbone and of the network made of it."""
    found = {}
    for way in ("eager", "ours"):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found[way] = pool.apply(peak, (name, size, threads), {"ours": way == "ours"})
    return found


def rows_of(compared: list[dict], memory: dict[str, dict[str, int]]) -> list[Row]:
    """The main backbone's with its targets; every other one's must not be slower."""
    rows = []
    for one in compared:
        (frames, pixels), seconds = one["size"], one["seconds"]
        main, half = one["backbone"] == MAIN, one["precision"] == "bfloat16"
        what = f"backbone forward, {one['backbone']}, {frames} x {pixels} x {pixels}, {one['threads']} thread(s)"
        faster, target = ratio(seconds["eager"], seconds["ours"]), 2.3 if half else 1.2 if main else 1.0
        what += f", {one['precision']}" if half else ""
        rows.append(Row(what, "eager float32", faster, "speed", target, "at least"))
        if main and not half:
            by = ratio(seconds["ours"], seconds["floor"])
            rows.append(Row(what, "its multiply-adds at the rate of a matrix product", by, "time"))
    for name, of in memory.items():
        share = spread([of["ours"] / of["eager"]])
        frames, pixels = SIZES[name][0]
        what = f"backbone forward, {name}, {frames} x {pixels} x {pixels}, peak memory"
        rows.append(Row(what, "eager float32", share, "number", 1.0, "at most"))
    return rows


def markdown(where: dict, result: dict) -> str:
    native = "has" if result["bfloat16_instructions"] else "has no"
    lines = [
        f"# Backbone forward\n\n{where['date']}, {where['cpu']}, {where['cores']} cores, load {where['load_before']} "
        f"before; torch {where['torch']}. Batch 1, {result['turns']} turn(s); medians, in seconds. The floor: the "
        f"backbone's multiply-adds at the rate of a float32 product of {SIDE} x {SIDE} in the same turn. The processor "
        f"{native} instructions for bfloat16.\n",
        "| backbone | clip | threads | precision | eager float32 | ours | floor | multiply-adds, G | features apart |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in result["compared"]:
        eager, ours, floor = (f"{statistics.median(one['seconds'][way]):.3g}" for way in ("eager", "ours", "floor"))
        lines.append(
            f"| {one['backbone']} | {one['size'][0]} x {one['size'][1]} | {one['threads']} | {one['precision']} | "
            f"{eager} | {ours} | {floor} | {digits(one['multiply_adds'] / 1e9)} | {one['distance']:.1e} |"
        )
    predicted = result["predictions"]
    lines.append(
        f"\nbfloat16 flips the Top-1 of {len(predicted['flipped'])} of {predicted['clips']} random clips "
        f"({predicted['flipped']}) under a random classifier of {CLASSES} classes on {predicted['backbone']}.\n"
    )
    for name, of in result["memory"].items():
        lines.append(f"Peak of a forward, {name}: eager {of['eager'] / 1e6:.0f} MB, ours {of['ours'] / 1e6:.0f} MB.\n")
    return "\n".join(lines)


@torch.inference_mode()
def main() -> None:
    args = arguments(__doc__, turns=5, quick_turns=2).parse_args()
    torch.set_num_threads(args.threads)
    where, turns = machine("torch", threads=args.threads), turns_of(args)
    native = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    sizes = {name: both[args.quick] for name, both in SIZES.items()}
    compared = [compare(MAIN, sizes[MAIN], turns=turns)]
    if args.threads > 1:
        torch.set_num_threads(1)
        compared.append(compare(MAIN, sizes[MAIN], turns=turns))
        torch.set_num_threads(args.threads)
    compared.append(compare(MAIN, sizes[MAIN] if native else EMULATED, turns=turns, precision="bfloat16"))
    compared += [compare(name, size, turns=turns) for name, size in sizes.items() if name != MAIN]
    predicted = predictions("r2plus1d_narrow", sizes["r2plus1d_narrow"], clips=PREDICTED[not args.quick])
    # At the full size always: it is one forward, and at others weights count for more.
    memory = {name: peaks(name, SIZES[name][0], args.threads) for name in SIZES if name == MAIN or not args.quick}
    result = {"bfloat16_instructions": native, "turns": turns, "predictions": predicted, "memory": memory}
    result["compared"] = compared
    text = markdown(where, result)
    write("backbone", rows_of(compared, memory), out=args.out, machine=where, text=text, **result)


if __name__ == "__main__":
    main()
