"""How fast models run: latency, clips a second and peak memory of the forward pass in evaluation, as measured here.

Command: ``taghead speed --out results/speed.json``. One file may hold the numbers of several machines.
"""

import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from taghead.backbones import BACKBONES, check_input
from taghead.config import (
    Config,
    DataConfig,
    HeadConfig,
    ModelConfig,
    Positive,
    Value,
    canonical,
    evolve,
    read_versioned,
)
from taghead.errors import InputError
from taghead.files import write_text
from taghead.model import VideoModel, build_model
from taghead.probe import device_name

SCHEMA_VERSION = 1  # of speed.json
NUM_CLASSES = 99  # of the classifier in every measured model: Gym99's
TURNS = {"cpu": (1, 5)}  # turns to warm up, and timed ones
GPU_TURNS = (5, 50)
# what changes numbers and no work, in evaluation
WORKLESS = ("dropout", "edge_dropout", "position_init", "alpha")
MEMORY = {
    "cpu": "growth of a fresh process's resident memory, at its peak, over model, clips and warm-up (Linux only)",
    "cuda": "the most that tensors held of the GPU, by torch's allocator, in a fresh process",
}

Precision = Literal["float32", "bfloat16"]


class Subject(Value):
    """What is measured: a model and its clips. The head is None for mean pool and linear classifier."""

    backbone: str
    num_frames: Positive
    crop_size: Positive
    head: HeadConfig | None
    batch_size: Positive = 1

    @property
    def config(self) -> Config:
        """An experiment with this model, from random weights."""
        return Config(
            data=DataConfig(num_frames=self.num_frames, crop_size=self.crop_size, short_side=self.crop_size),
            model=ModelConfig(backbone=self.backbone, pretrained=False, head="linear" if self.head is None else "tag"),
            head=self.head or HeadConfig(),
        )


class Setting(Value):
    """Where and how it was measured: numbers are to be compared within one setting."""

    device: str
    threads: int
    torch: str
    precision: Precision = "float32"


class Part(Value):
    """One subject in one setting.

    Attributes:
        seconds: Of a batch's forward pass, by turn, in the order in which they were taken.
        peak_memory_bytes: See `MEMORY`, by kind of device; None where it is not to be had.
        load: Processes that wanted a core in the minute before, ours among them; None where the system does not tell.
        error: Why there are no numbers; such a part is tried again.
    """

    subject: Subject
    setting: Setting
    seconds: tuple[float, ...] = ()
    peak_memory_bytes: int | None = None
    load: float | None = None
    error: str | None = None

    @property
    def median(self) -> float:
        """Seconds of a batch; NaN where nothing was measured."""
        return statistics.median(self.seconds) if self.seconds else float("nan")

    @property
    def p95(self) -> float:
        """The 95th percentile of the seconds of a batch, between the turns by straight lines; NaN likewise."""
        return float(np.percentile(self.seconds, 95)) if self.seconds else float("nan")

    @property
    def clips_per_second(self) -> float:
        """By the median."""
        return self.subject.batch_size / self.median


class Speed(Value):
    """What a file of measurements holds."""

    schema_version: int = SCHEMA_VERSION
    parts: tuple[Part, ...] = ()


def read_speed(path: Path) -> Speed:
    """Reads what was measured.

    Args:
        path: The file that ``taghead speed`` wrote.

    Raises:
        InputError: There is none, it is damaged, or a newer version wrote it.
    """
    return read_versioned(
        path, Speed, version=SCHEMA_VERSION, what="file of speeds", remedy="; remove it and measure again"
    )


def subject_of(config: Config, *, batch_size: int = 1) -> Subject:
    """What of a config tells how long its forward pass takes: equal subjects do equal work.

    The classifier's width is left out: `NUM_CLASSES` are measured, and it is a vector's product with a matrix.

    Args:
        config: Any experiment on a backbone of `BACKBONES`.
        batch_size: B.
    """
    config = canonical(config)
    head = None
    if config.model.head == "tag":
        known = HeadConfig()
        unread = {name: getattr(known, name) for name in WORKLESS}
        walked = config.head.rewiring is not None and config.head.readout != "mean"  # step by step, whatever is asked
        if config.head.propagation == "closed_form" and config.head.k_prop and not walked:
            unread["k_prop"] = known.k_prop  # steps are two small matrices, however many
        head = config.head.model_copy(update=unread)
    return Subject(
        backbone=config.model.backbone,
        num_frames=config.data.num_frames,
        crop_size=config.data.crop_size,
        head=head,
        batch_size=batch_size,
    )


def subjects(
    backbones: Iterable[str],
    *,
    num_frames: int = 32,
    crop_size: int = 112,
    batch_sizes: Iterable[int] = (1, 8),
    overrides: Mapping[str, Any] | None = None,
) -> list[Subject]:
    """Each backbone at each batch size, bare and then with the head, so that the two stand close in time.

    Args:
        backbones: Keys of `BACKBONES`; none for all.
        num_frames: F.
        crop_size: Height and width of the clips in pixels.
        batch_sizes: B.
        overrides: Of the head, as ``{"head.ffn_dim": 512}``.

    Raises:
        InputError: An unknown backbone, a clip that it does not take, no batch size, or a key that is not the head's.
    """
    for key in overrides or {}:
        if not key.startswith("head."):
            raise InputError(f"the head's fields can be set here, as head.ffn_dim, but got {key}; leave it out.")
    sizes = list(dict.fromkeys(batch_sizes))
    if not sizes or min(sizes) < 1:
        raise InputError(f"batch sizes must be 1 or more, but got {', '.join(map(str, sizes)) or 'none'}; give 1,8.")
    found = []
    for name in dict.fromkeys(backbones) or BACKBONES:
        check_input(name, num_frames, crop_size)
        seen = {"data.num_frames": num_frames, "data.short_side": crop_size, "data.crop_size": crop_size}
        for size in sizes:
            for head in ("linear", "tag"):
                values = {**seen, "model.backbone": name, "model.head": head, **(overrides or {})}
                found.append(subject_of(evolve(Config(), values), batch_size=size))
    return found


def measure(
    path: Path,
    wanted: Iterable[Subject],
    *,
    device: str = "cpu",
    threads: int = 1,
    precision: Precision = "float32",
    turns: int | None = None,
    again: bool = False,
    on_part: Callable[[Part], None] | None = None,
) -> Speed:
    """Measures what the file does not hold yet, each part in a process of its own, and adds it as soon as it is there.

    Args:
        path: The file; another's parts in it stay.
        wanted: As from `subjects`.
        device: As from `taghead.machine.find_device`.
        threads: For torch on the CPU.
        precision: ``bfloat16`` is autocast.
        turns: Timed ones; None: 5 on a CPU, 50 elsewhere.
        again: Whether to measure also what is there.
        on_part: Is told of each part, those that were there among them.

    Raises:
        InputError: The file is damaged, or a newer version wrote it.
    """
    setting = Setting(device=name_of(device), threads=threads, torch=torch.__version__, precision=precision)
    for subject in dict.fromkeys(wanted):
        part = None if again else _find(_stored(path), subject, setting)
        if part is None:
            part = _in_fresh_process(subject, setting, device=device, turns=turns)
            add(path, part)
        if on_part:
            on_part(part)
    return _stored(path)


def _stored(path: Path) -> Speed:
    return read_speed(path) if path.exists() else Speed()


def _find(speed: Speed, subject: Subject, setting: Setting) -> Part | None:
    same = (part for part in speed.parts if (part.subject, part.setting) == (subject, setting) and not part.error)
    return next(same, None)


def add(path: Path, part: Part) -> None:
    """Adds a part to a file, in the place of an older one of the same subject and setting; the file is there whole.

    Args:
        path: Read anew, so that two that measure into one file lose little of each other's.
        part: What was measured.
    """
    parts = {(one.subject, one.setting): one for one in _stored(path).parts}
    parts[part.subject, part.setting] = part
    path.parent.mkdir(parents=True, exist_ok=True)
    # one part a line, so that two files are easily compared
    lines = ",\n".join(one.model_dump_json() for one in parts.values())
    write_text(path, f'{{"schema_version": {SCHEMA_VERSION}, "parts": [\n{lines}\n]}}\n')


def name_of(device: str) -> str:
    """A device by the name that tells its speed: the GPU's, or the processor's where the system gives it.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; it must be there.
    """
    if torch.device(device).type != "cpu":
        return device_name(device)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"cpu ({_processor()}, {cores} cores)"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


_CHILD = "import sys; from taghead.speed import answer; answer(sys.argv[1])"


def _in_fresh_process(subject: Subject, setting: Setting, *, device: str, turns: int | None) -> Part:
    """A process holds nothing of those before it, and if it dies of too little memory, the others are measured."""
    order = {"subject": subject.model_dump(), "setting": setting.model_dump(), "device": device, "turns": turns}
    done = subprocess.run([sys.executable, "-c", _CHILD, json.dumps(order)], capture_output=True, text=True)
    if done.returncode == -signal.SIGKILL:
        return Part(subject=subject, setting=setting, error="killed, as systems do when memory runs out")
    if done.returncode:
        raise RuntimeError(f"measuring {subject} failed:\n{done.stderr}")
    return Part.model_validate_json(done.stdout.splitlines()[-1])


def answer(order: str) -> None:
    """What the fresh process does: measures one part and prints it.

    Args:
        order: JSON of subject, setting, device and turns.
    """
    values = json.loads(order)
    subject, setting = Subject.model_validate(values["subject"]), Setting.model_validate(values["setting"])
    print(measure_part(subject, setting, device=values["device"], turns=values["turns"]).model_dump_json())


def measure_part(subject: Subject, setting: Setting, *, device: str = "cpu", turns: int | None = None) -> Part:
    """Measures one subject in this process, whose memory tells that of the model only if nothing ran here before.

    A turn is one batch of random clips that lie on the device already, from the backbone to logits on the CPU: reading
    them is what waits for the device. Weights are random; they change no time.

    Args:
        subject: What.
        setting: How; its threads become torch's.
        device: Where.
        turns: Timed ones; None: those of `TURNS`.
    """
    place = torch.device(device)
    warm_up, usual = TURNS.get(place.type, GPU_TURNS)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    torch.set_num_threads(setting.threads)
    try:
        before = _memory_before(place)
        model = build_model(subject.config, NUM_CLASSES).to(place).eval()
        shape = (subject.batch_size, 3, subject.num_frames, subject.crop_size, subject.crop_size)
        clips = torch.randn(shape, device=place)
        for _ in range(warm_up):
            _turn(model, clips, setting.precision)
        peak = _peak(place, before)
        seconds = tuple(_turn(model, clips, setting.precision) for _ in range(turns or usual))
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        return Part(subject=subject, setting=setting, error=f"does not fit into the memory of {setting.device}")
    return Part(subject=subject, setting=setting, seconds=seconds, peak_memory_bytes=peak, load=load)


@torch.no_grad()
def _turn(model: VideoModel, clips: torch.Tensor, precision: Precision) -> float:
    start = time.perf_counter()
    with torch.autocast(clips.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        model(clips).float().cpu()
    return time.perf_counter() - start


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _memory_before(device: torch.device) -> int | None:
    """Bytes that are held already; from here on the peak is counted."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return 0
    if device.type != "cpu":
        return None
    torch.nn.functional.conv3d(torch.zeros(1, 1, 3, 3, 3), torch.zeros(1, 1, 3, 3, 3))  # loads the code that convolves
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is held
    except OSError:
        return None
    return _status_bytes("VmRSS")


def _peak(device: torch.device, before: int | None) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # not getrusage's, which a process inherits from the one that started it
    after = _status_bytes("VmHWM") if before is not None else None
    return None if before is None or after is None else max(0, after - before)


def _status_bytes(field: str) -> int | None:
    """A field of Linux's account of this process; None on other systems."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    values = [int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")]
    return values[0] if values else None
