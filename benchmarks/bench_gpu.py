"""Full-size training on a GPU: time and memory of a step, the head's share, the input pipeline, trials that share.

    python benchmarks/bench_gpu.py
    python benchmarks/bench_gpu.py --device cpu --quick     tries the script itself, on tiny clips

The paper's recipes for HAA500 (32 frames) and Gym99 (64 frames), at float32, TF32 and bfloat16, eager and compiled;
"bare" is the same backbone with a linear classifier on its mean, in turn with the whole model in one run. A step is
`taghead.fit.train_epoch` on a batch that lies on the device. What does not fit into memory is said in its place.
Writes gpu.json and gpu.md. Without a GPU nothing is measured, and the last numbers stay.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from machine import machine
from moving_clips import H264, write_clip
from turns import Row, arguments, digits, measure, ratio, spread, turns_of, write

from taghead.config import Config, evolve
from taghead.data.batches import train_batches
from taghead.data.clips import Clip
from taghead.data.frame_cache import FrameCache
from taghead.fit import train_epoch
from taghead.model import build_model
from taghead.probe import device_name
from taghead.recipes import recipe
from taghead.run import view_of

RECIPES = {"haa500": 500, "gym99": 99}  # number of classes
PRECISIONS = ("float32", "tf32", "bfloat16")
BARE, WHOLE = "bare", "with the head"
TINY = {"data.num_frames": 8, "data.short_side": 36, "data.crop_size": 32, "train.batch_size": 2}
LENGTH, NUM_CLIPS = 150, 48  # of the input pipeline's clips
SHARING = 8  # trials at once at the most
GROWTH = 1.05  # of throughput; less is none
SECONDS = 10.0  # for which trials share the card


def config_of(name: str, *, head: str = "tag", precision: str = "float32", tiny: bool) -> Config:
    """The paper's recipe with random weights; ``tf32`` is float32 to a config."""
    autocast = "bfloat16" if precision == "bfloat16" else "float32"
    changes = {"model.pretrained": False, "model.head": head, "train.precision": autocast}
    return evolve(recipe(name, name="paper"), changes | (TINY if tiny else {}))


@contextmanager
def products_in(precision: str) -> Iterator[None]:
    """Matrix products and convolutions of float32 numbers in TF32, or not."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def batch(config: Config, num_classes: int, device: torch.device) -> SimpleNamespace:
    """What `train_epoch` reads of a batch."""
    torch.manual_seed(1)
    data, clips = config.data, config.train.batch_size
    frames = torch.randn(clips, 3, data.num_frames, data.crop_size, data.crop_size, device=device)
    labels = torch.randint(num_classes, (clips,), device=device)
    return SimpleNamespace(frames=frames, labels=labels, ids=range(clips))


def stepper(config: Config, num_classes: int, device: torch.device, *, compiled: bool) -> Callable[[], None]:
    """A training step that ends when the device has ended it."""
    torch.manual_seed(0)
    model: Any = build_model(config, num_classes).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, fused=True)
    shown = batch(config, num_classes, device)
    if compiled:
        model = torch.compile(model)

    def step() -> None:
        train_epoch(model, optimizer, [shown], epoch=0, device=device, precision=config.train.precision)
        synchronize(device)

    return step


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_of(step: Callable[[], None], device: torch.device) -> int:
    """Bytes of tensors at a step's peak, weights and Adam's state among them; 0 where no card counts them."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    step()
    return torch.cuda.max_memory_allocated(device)


def of_steps(name: str, device: torch.device, *, tiny: bool, turns: int) -> Iterator[dict[str, Any]]:
    """Times and peaks of both models, for each precision, eager and compiled."""
    for precision in PRECISIONS:
        for compiled in (False, True) if device.type == "cuda" else (False,):  # a CPU compiles for minutes
            made: dict[str, Any] = {"recipe": name, "precision": precision, "compiled": compiled}
            configs = {
                BARE: config_of(name, head="linear", precision=precision, tiny=tiny),
                WHOLE: config_of(name, precision=precision, tiny=tiny),
            }
            made["batch"] = configs[WHOLE].train.batch_size
            try:
                with products_in(precision):
                    made["bytes"] = {  # one model at a time is on the card
                        way: peak_of(warm(stepper(config, RECIPES[name], device, compiled=compiled)), device)
                        for way, config in configs.items()
                    }
                    steps = {
                        way: stepper(config, RECIPES[name], device, compiled=compiled)
                        for way, config in configs.items()
                    }
                    made["seconds"] = measure(steps, turns=turns)
            except Exception as error:  # a card without room, or a compiler that is not there: the others go on
                made["error"] = (str(error).splitlines() or [type(error).__name__])[0][:120]
            finally:
                steps = {}
                if device.type == "cuda":
                    torch.compiler.reset()
                    torch.cuda.empty_cache()
            yield made


def warm(step: Callable[[], None]) -> Callable[[], None]:
    """A step that was made twice: compiled, and with Adam's state."""
    step()
    step()
    return step


def of_agreement(name: str, device: torch.device, *, tiny: bool) -> dict[str, float]:
    """How far the logits of one model lie from those on the CPU in float32, relative to their largest."""
    config = config_of(name, tiny=tiny)
    torch.manual_seed(0)
    model = build_model(config, RECIPES[name]).eval()
    frames = batch(config, RECIPES[name], torch.device("cpu")).frames[:2]
    found = {}
    with torch.no_grad():
        known = model(frames)
        model.to(device)
        for precision in PRECISIONS:
            with products_in(precision), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                logits = model(frames.to(device)).float().cpu()
            found[precision] = ((logits - known).abs().max() / known.abs().max()).item()
    return found


def of_input(name: str, device: torch.device, *, tiny: bool) -> dict[str, list[float]]:
    """Clips a second of an epoch of batches on the device: decoded, and from the cache, in three turns."""
    config = config_of(name, tiny=tiny)
    data, size = config.data, config.train.batch_size
    with tempfile.TemporaryDirectory() as folder:
        number = 2 * size if tiny else NUM_CLIPS
        paths = [write_clip(Path(folder), H264, LENGTH, seed=seed) for seed in range(number)]
        clips = [Clip(path.stem, path, 0, "train") for path in paths]
        cache = FrameCache(Path(folder) / "frames", num_frames=data.num_frames, short_side=data.short_side)
        bare = FrameCache(None, num_frames=data.num_frames, short_side=data.short_side, memory_bytes=0)
        ways = {"decoded": partial(through, clips, bare, config, device)}
        ways["cached"] = partial(through, clips, cache, config, device)
        times = measure(ways, turns=3)
    return {way: [number / one for one in taken] for way, taken in times.items()}


def through(clips: Sequence[Clip], cache: FrameCache, config: Config, device: torch.device) -> None:
    data = config.data
    drawn: dict[str, Any] = {"seed": 0, "epoch": 0, "crop": data.train_crop, "flip": data.flip}
    for _ in train_batches(
        clips, cache=cache, batch_size=config.train.batch_size, **drawn, **view_of(config, device=device)
    ):
        pass
    synchronize(device)


def child(order: dict[str, Any]) -> None:
    """A trial that shares the card: says that it is ready, waits for the others, and tells its clips a second."""
    torch.set_num_threads(1)
    device = torch.device(order["device"])
    config = config_of(order["recipe"], precision=order["precision"], tiny=order["tiny"])
    with products_in(order["precision"]):
        step = warm(stepper(config, RECIPES[order["recipe"]], device, compiled=False))
        print("ready", flush=True)
        sys.stdin.readline()
        start, steps = time.perf_counter(), 0
        while time.perf_counter() - start < order["seconds"]:
            step()
            steps += 1
    print(steps * config.train.batch_size / (time.perf_counter() - start), flush=True)


def together(number: int, order: dict[str, Any]) -> float | None:
    """Clips a second of so many trials at once, all together; None where one of them ends early, as for memory."""
    command = [sys.executable, __file__, "--child", json.dumps(order)]
    pipe = subprocess.PIPE
    children = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(number)]
    try:
        if any(one.stdout is None or one.stdout.readline() != "ready\n" for one in children):
            return None
        for one in children:
            one.stdin.write("go\n")  # type: ignore[union-attr]
            one.stdin.flush()  # type: ignore[union-attr]
        told = [one.communicate()[0] for one in children]
        return sum(map(float, told)) if all(told) else None
    finally:
        for one in children:
            one.kill()
            one.wait()


def of_sharing(name: str, device: str, *, tiny: bool, seconds: float) -> list[float]:
    """Clips a second of 1, 2, ... trials at once, until throughput stops to grow or memory ends."""
    order = {"recipe": name, "device": device, "precision": "tf32", "tiny": tiny, "seconds": seconds}
    found: list[float] = []
    for number in range(1, (2 if tiny else SHARING) + 1):
        made = together(number, order)
        if made is None:
            break
        found.append(made)
        if number > 1 and made < GROWTH * found[-2]:
            break
    return found


def rows_of(steps: list[dict[str, Any]], inputs: dict[str, Any], shared: dict[str, list[float]]) -> list[Row]:
    """The lines of the one table; none of them has a target."""
    rows = []
    for one in (one for one in steps if "seconds" in one):
        part = f"a training step with the head, {told(one)}"
        rows.append(Row(part, "the bare backbone", ratio(one["seconds"][WHOLE], one["seconds"][BARE]), "time"))
    for name, found in inputs.items():
        quickest = min(
            (spread(one["seconds"][WHOLE]).median / one["batch"] for one in steps if told_of(one, name)), default=0.0
        )
        for way, rates in found.items() if quickest else ():
            part = f"input pipeline, {name}, {way}: clips a second"
            rows.append(Row(part, "what the quickest step eats", spread([quickest * rate for rate in rates]), "speed"))
    for name, rates in shared.items():
        best = max(range(len(rates)), key=rates.__getitem__)
        part = f"{best + 1} trials that share the card, {name}, TF32: clips a second, all together"
        rows.append(Row(part, "one trial", spread([rates[best] / rates[0]]), "speed"))
    return rows


def told(one: dict[str, Any]) -> str:
    return f"{one['recipe']}, batch {one['batch']}, {one['precision']}{', compiled' if one['compiled'] else ''}"


def told_of(one: dict[str, Any], name: str) -> bool:
    return one["recipe"] == name and "seconds" in one


def page(where: dict[str, Any], steps: list[dict[str, Any]], agreement: dict[str, Any], inputs: dict[str, Any],
         shared: dict[str, list[float]]) -> str:  # fmt: skip
    lines = [
        "# Full-size training on a GPU",
        "",
        f"{where['date']}, {where['device']}, {where['cpu']}, {where['cores']} cores; torch {where['torch']}.",
        "",
        "| step | bare, ms | with the head, ms | the head's share | bare, MiB | with the head, MiB |",
        "|---|---|---|---|---|---|",
    ]
    for one in steps:
        if "error" in one:
            lines.append(f"| {told(one)} | {one['error'].replace('|', '/')} | | | | |")
            continue
        bare, whole = (spread(one["seconds"][way]).median for way in (BARE, WHOLE))
        memory = [f"{one['bytes'][way] / 2**20:,.0f}" if one["bytes"][way] else "-" for way in (BARE, WHOLE)]
        share = f"{100 * (1 - bare / whole):.0f} %"
        lines.append(f"| {' | '.join([told(one), digits(1e3 * bare), digits(1e3 * whole), share, *memory])} |")
    for name, found in agreement.items():
        apart = ", ".join(f"{precision} {value:.1e}" for precision, value in found.items())
        lines += ["", f"{name}: largest difference of logits to float32 on the CPU, by the largest logit: {apart}."]
    for name, found in inputs.items():
        rates = ", ".join(f"{way} {spread(one)}" for way, one in found.items())
        lines += ["", f"{name}: clips a second of the input pipeline, to the device: {rates}."]
    for name, rates in shared.items():
        each = ", ".join(f"{number} {rate:.1f}" for number, rate in enumerate(rates, start=1))
        lines += ["", f"{name}: clips a second, all together, by how many trials share the card (TF32): {each}."]
    return "\n".join(lines)


def main() -> None:
    parser = arguments(__doc__, turns=5, quick_turns=2)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child)
        return
    if args.device == "cuda" and not torch.cuda.is_available():
        print("torch sees no GPU here: nothing measured.")
        return
    torch.set_num_threads(args.threads)
    device, tiny = torch.device(args.device), args.device == "cpu"
    where = machine("torch", "av", device=device_name(args.device), threads=args.threads)
    names = list(RECIPES)[: 1 if args.quick else None]
    agreement = {name: of_agreement(name, device, tiny=tiny) for name in names}
    steps = [one for name in names for one in of_steps(name, device, tiny=tiny, turns=turns_of(args))]
    inputs = {name: of_input(name, device, tiny=tiny) for name in names}
    seconds = 1.0 if tiny else SECONDS
    shared = {name: of_sharing(name, args.device, tiny=tiny, seconds=seconds) for name in names}
    rows = rows_of(steps, inputs, shared)
    text = page(where, steps, agreement, inputs, shared)
    found = {"steps": steps, "agreement": agreement, "inputs": inputs, "shared": shared}
    write("gpu", rows, out=args.out, machine=where, text=text, **found)


if __name__ == "__main__":
    main()
