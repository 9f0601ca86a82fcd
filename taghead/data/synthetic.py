"""Synthetic fine-grained actions: an articulated figure as real H.264 files in the HAA500 layout, ready for UniView.

Axes: T frames; h w pixels.
All that is not the class (start pose and facing, an idle arm, colours, background, place, size, camera drift, speed,
length) is drawn without a word of what the class does. Classes that only time tells apart share these draws: clip 7 of
one is the twin of clip 7 of the other, with the same of all that, and only the motion differs. In training that holds
for all classes.
"""

import csv
import json
import platform
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, get_args

import av
import numpy as np
from jaxtyping import Float, Float32, UInt8

from taghead.data.figure import PALETTE, Camera, Pose, draw
from taghead.data.haa500 import split_of
from taghead.data.motions import COARSE, FINE, TIME_ALONE, Motion
from taghead.data.parallel import in_processes
from taghead.errors import InputError
from taghead.files import write_text, written_whole

Kind = Literal["fine", "coarse"]
Size = Literal["tiny", "small", "medium"]

VERSION = 1
ENCODING = {"crf": "18", "preset": "veryfast"}
if platform.machine() in ("x86_64", "AMD64"):  # with AVX-512, x264 gives other bytes each time
    ENCODING["x264-params"] = "asm=sse4.2"
FRAMES_PER_SECOND = 25
WIDTH, HEIGHT = 72, 64
_MOTIONS: dict[str, dict[str, Motion]] = {"fine": FINE, "coarse": COARSE}
_CLIPS_PER_CLASS = {"tiny": 20, "small": 40, "medium": 200}
_TINY_CLASSES = {
    "fine": ("turn_one_left", "turn_one_right", "raise_arms_then_squat", "squat_then_raise_arms"),
    "coarse": ("keeps_turning_left", "keeps_turning_right", "lifts_arms", "lowers_arms"),
}


@dataclass(frozen=True, slots=True)
class Nuisance:
    """All that varies from clip to clip without telling the class.

    Attributes:
        num_frames: Length of the clip.
        motion_start: First frame of the motion.
        motion_frames: Frames that the motion takes: its speed.
        repeats: Repetitions that coarse motions make; fine ones do not read it.
        facing_degrees: Yaw at the start.
        stance: Start pose: left and right arm out, elbows, legs out (radians) and squat (0 to 1).
        idle: Swing of one arm throughout: side (0 left, 1 right), radians, periods in the clip, phase (radians).
        elevation_degrees: Camera above the horizon.
        height_pixels: Size of the figure.
        place_x: Ground point of the figure at mid clip, pixels from the left.
        place_y: The same, pixels from the top.
        drift_x: Way of the picture's content over the whole clip by the camera's motion, pixels to the right.
        drift_y: The same, pixels down.
        colours: One `#rrggbb` for each name in `PALETTE`, in its order.
        background: Seed of the background.
    """

    num_frames: int
    motion_start: float
    motion_frames: float
    repeats: float
    facing_degrees: float
    stance: tuple[float, float, float, float, float]
    idle: tuple[int, float, float, float]
    elevation_degrees: float
    height_pixels: float
    place_x: float
    place_y: float
    drift_x: float
    drift_y: float
    colours: tuple[str, ...]
    background: int


def classes_of(*, size: Size, kind: Kind) -> tuple[str, ...]:
    """The classes of a data set, sorted; `tiny` holds four of them."""
    return tuple(sorted(_TINY_CLASSES[kind] if size == "tiny" else _MOTIONS[kind]))


def nuisance(stream: int, number: int, *, seed: int, kind: Kind) -> Nuisance:
    """Draw what is not the class. The class is no argument, and all streams are alike.

    Args:
        stream: As `stream_of` has it.
        number: Number of the clip within its class.
        seed: Seed of the data set.
        kind: Fine and coarse data sets of one seed have nothing in common.
    """
    rng = np.random.default_rng([seed, ("fine", "coarse").index(kind), stream, number])
    num_frames = int(rng.integers(24, 81))
    motion_frames = num_frames * rng.uniform(0.5, 0.9)
    drift = rng.uniform(0, 12) * np.exp(1j * rng.uniform(0, 2 * np.pi))
    return Nuisance(
        num_frames=num_frames,
        motion_start=rng.uniform(0, num_frames - motion_frames),
        motion_frames=motion_frames,
        repeats=rng.uniform(1.5, 3.2),
        facing_degrees=rng.uniform(0, 360),
        stance=(
            rng.uniform(0.1, 0.6),
            rng.uniform(0.1, 0.6),
            rng.uniform(0, 0.8),
            rng.uniform(0.03, 0.2),
            rng.uniform(0, 0.15),
        ),
        idle=(int(rng.integers(2)), rng.uniform(0, 0.8), rng.uniform(0.5, 2.5), rng.uniform(0, 2 * np.pi)),
        elevation_degrees=rng.uniform(5, 25),
        height_pixels=rng.uniform(40, 48),
        place_x=WIDTH / 2 + rng.uniform(-4, 4),
        place_y=HEIGHT - 7 + rng.uniform(-3, 3),
        drift_x=drift.real,
        drift_y=0.5 * drift.imag,
        colours=tuple(_hexadecimal(colour) for colour in _palette(rng)),
        background=int(rng.integers(2**31)),
    )


def stream_of(name: str, number: int, *, kind: Kind) -> int:
    """Which stream of nuisances a clip draws from.

    Fine training clips of one number share theirs over all classes: no network can learn a class by its scenery. Those
    to validate and test share it with their twin only, so that a score rests on more scenes. Coarse classes have a
    stream each.
    """
    if kind == "coarse":
        return len(TIME_ALONE) + sorted(COARSE).index(name)
    if split_of(number) == "train":
        return len(TIME_ALONE)
    return next(i for i, group in enumerate(TIME_ALONE) if name in group)


def _palette(rng: np.random.Generator) -> list[Float[np.ndarray, " 3"]]:
    """Free colours within bounds that keep front, back, left and right apart: left limbs are warm, right ones cool."""

    def between(low: tuple[int, int, int], high: tuple[int, int, int]) -> Float[np.ndarray, " 3"]:
        return rng.uniform(low, high)

    shade = rng.uniform(0.6, 1.1)
    return [
        between((50, 50, 50), (190, 190, 190)),
        between((180, 170, 120), (255, 255, 235)),
        between((10, 10, 10), (80, 70, 90)),
        between((150, 100, 70), (240, 200, 170)),
        shade * between((190, 50, 20), (230, 140, 90)),
        shade * between((20, 60, 140), (100, 140, 230)),
    ]


def _hexadecimal(colour: Float[np.ndarray, " 3"]) -> str:
    return "#" + "".join(f"{int(value):02x}" for value in np.clip(colour, 0, 255))


def _way(drawn: Nuisance) -> Float[np.ndarray, "T 2"]:
    """Where the drift has brought the picture's content, from where it is at mid clip."""
    at = np.arange(drawn.num_frames)
    return np.outer(at / (drawn.num_frames - 1) - 0.5, (drawn.drift_x, drawn.drift_y))


@lru_cache(maxsize=1)  # training clips of one number, which are made in turn, have the same
def _background(drawn: Nuisance) -> Float32[np.ndarray, "T h w 3"]:
    """A smooth, coloured noise wider than a frame, of which each frame sees the part that the drift has come to."""
    way, rng = _way(drawn), np.random.default_rng(drawn.background)
    margin = 8
    tall, wide = HEIGHT + 2 * margin + 1, WIDTH + 2 * margin + 1
    canvas = rng.uniform(30, 220, 3) + np.zeros((tall, wide, 3))
    for cells, strength in ((2, 38.0), (5, 24.0), (12, 12.0)):
        grid = rng.uniform(-strength, strength, (cells + 1, cells + 1, 3))
        y, x = np.linspace(0, cells - 1e-6, tall), np.linspace(0, cells - 1e-6, wide)
        rows = _blend(grid, y)
        canvas += _blend(rows.swapaxes(0, 1), x).swapaxes(0, 1)
    canvas = np.clip(canvas, 0, 255).astype(np.float32)
    frames = np.empty((len(way), HEIGHT, WIDTH, 3), np.float32)
    for frame, (x, y) in zip(frames, margin - way, strict=True):
        left, top, right, down = int(x), int(y), np.float32(x % 1), np.float32(y % 1)
        seen = canvas[top : top + HEIGHT + 1, left : left + WIDTH + 1]
        seen = seen[:-1] + down * (seen[1:] - seen[:-1])
        frame[:] = seen[:, :-1] + right * (seen[:, 1:] - seen[:, :-1])
    return frames


def _blend(values: Float[np.ndarray, "n ..."], at: Float[np.ndarray, " m"]) -> Float[np.ndarray, "m ..."]:
    """Linear interpolation along the first axis."""
    low = at.astype(int)
    share = (at - low).reshape(-1, *[1] * (values.ndim - 1))
    return values[low] * (1 - share) + values[low + 1] * share


def render(name: str, number: int, *, seed: int, kind: Kind) -> UInt8[np.ndarray, "T h w 3"]:
    """The frames of one clip, RGB, before they are encoded.

    Args:
        name: Class, one of `classes_of(size="small", kind=kind)`.
        number: Number of the clip within its class.
        seed: Seed of the data set.
        kind: "fine" or "coarse".
    """
    drawn = nuisance(stream_of(name, number, kind=kind), number, seed=seed, kind=kind)
    progress = np.clip((np.arange(drawn.num_frames) - drawn.motion_start) / drawn.motion_frames, 0, 1)
    stand = _stand(drawn)
    frames = _background(drawn).copy()
    camera = Camera(
        elevation=np.radians(drawn.elevation_degrees),
        height=drawn.height_pixels,
        feet=_way(drawn) + np.array([drawn.place_x, drawn.place_y]),
    )
    colours = {
        part: [float(level) for level in bytes.fromhex(value[1:])]
        for part, value in zip(PALETTE, drawn.colours, strict=True)
    }
    draw(frames, stand.plus(**_MOTIONS[kind][name](progress, drawn.repeats)), camera, colours)
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def _stand(drawn: Nuisance) -> Pose:
    """The figure before and beside its motion: facing, start pose and the idle arm."""
    left_arm, right_arm, elbow, leg_out, squat = drawn.stance
    side, swing, periods, phase = drawn.idle
    time = np.linspace(0, 2 * np.pi * periods, drawn.num_frames) + phase
    return Pose.at_rest(drawn.num_frames).plus(
        yaw=np.radians(drawn.facing_degrees),
        arm_out=np.array([left_arm, right_arm]),
        arm_forward=swing * np.sin(time)[:, None] * (np.arange(2) == side),
        elbow=elbow,
        leg_out=leg_out,
        squat=squat,
    )


def write_video(path: Path, frames: UInt8[np.ndarray, "T h w 3"]) -> None:
    """Encode with H.264, in one thread and without a date: equal frames are equal bytes."""
    with (
        written_whole(path) as beside,
        av.open(beside, "w", format="mp4", options={"fflags": "+bitexact"}) as container,
    ):
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=ENCODING)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, FRAMES_PER_SECOND)
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def make_dataset(root: Path, *, size: Size | str, kind: Kind | str, seed: int = 0, workers: int | None = None) -> Path:
    """Write a data set in the HAA500 layout, or recognise that it is there.

    Clips are `<root>/video/<class>/<class>_NNN.mp4`; beside them `synthetic.json` (what was made), `clips.csv` (every
    clip with all that was drawn for it) and `README.md`. Equal arguments give equal bytes, whatever the number of
    workers. What a killed run has left is completed.

    Args:
        root: Folder for it; made when missing.
        size: "tiny" (4 classes of 20 clips), "small" (all classes, 40 clips each) or "medium" (all classes, 200 each).
        kind: "fine" (what time alone tells apart; the benchmark) or "coarse" (other motions, to pre-train on).
        seed: Seed of everything drawn.
        workers: Processes that render; None takes one a CPU core, 1 stays in this process.

    Returns:
        `root`.

    Raises:
        InputError: An unknown size or kind, or a folder that holds something else.
    """
    root = Path(root)
    about = _about(size, kind, seed)
    if _found(root, about) == about | {"finished": True}:
        return root
    root.mkdir(parents=True, exist_ok=True)
    write_text(root / "synthetic.json", json.dumps(about | {"finished": False}, indent=1) + "\n")
    jobs = [(name, number) for number in range(about["clips_per_class"]) for name in about["classes"]]
    for name in about["classes"]:
        (root / "video" / name).mkdir(parents=True, exist_ok=True)
    make = partial(_make_clip, root, seed=seed, kind=about["kind"])
    with closing(in_processes(make, jobs, died=_died, workers=workers)) as made:
        for _ in made:
            pass
    _write_table(root, jobs, seed=seed, kind=about["kind"])
    write_text(root / "README.md", _readme(about) + "\n")
    write_text(root / "synthetic.json", json.dumps(about | {"finished": True}, indent=1) + "\n")
    return root


def _died(job: tuple[str, int]) -> None:
    raise RuntimeError(f"the process that wrote clip {job[1]} of {job[0]} died; run with one worker to see why")


def _about(size: Any, kind: Any, seed: int) -> dict[str, Any]:
    for value, valid in ((size, get_args(Size)), (kind, get_args(Kind))):
        if value not in valid:
            raise InputError(f"one of {', '.join(valid)} must be given, but got {value!r}.")
    classes = classes_of(size=size, kind=kind)
    return {
        "synthetic": True,
        "version": VERSION,
        "seed": seed,
        "size": size,
        "kind": kind,
        "clips_per_class": _CLIPS_PER_CLASS[size],
        "classes": list(classes),
        "time_alone": [list(group) for group in TIME_ALONE if set(group) <= set(classes)],
    }


def _found(root: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """What `synthetic.json` says, empty for a new folder; anything but a part of the wanted is refused."""
    path = root / "synthetic.json"
    if not path.exists():
        if root.exists() and any(root.iterdir()):
            raise InputError(
                f"{root} must be empty or hold this synthetic data set, but holds other files; name a new folder."
            )
        return {}
    try:
        found: dict[str, Any] = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise InputError(f"{path}: damaged; name a new folder, or delete this one.") from None
    different = [key for key, value in wanted.items() if found.get(key) != value]
    if different:
        key = different[0]
        raise InputError(
            f"{root} holds another synthetic data set ({key}={found.get(key)!r}, wanted {wanted[key]!r}); "
            "name a new folder, or delete that one."
        )
    return found


def _clip_path(root: Path, name: str, number: int) -> Path:
    return root / "video" / name / f"{name}_{number:03d}.mp4"


def _make_clip(root: Path, job: tuple[str, int], *, seed: int, kind: Kind) -> None:
    name, number = job
    path = _clip_path(root, name, number)
    if not path.exists():
        write_video(path, render(name, number, seed=seed, kind=kind))


def _write_table(root: Path, jobs: Sequence[tuple[str, int]], *, seed: int, kind: Kind) -> None:
    with written_whole(root / "clips.csv") as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["clip", "class", "split", *(field.name for field in fields(Nuisance)), "drift_pixels"])
        for name, number in sorted(jobs):
            drawn = nuisance(stream_of(name, number, kind=kind), number, seed=seed, kind=kind)
            drift = float(np.hypot(drawn.drift_x, drawn.drift_y))
            values = [_cell(value) for value in [*asdict(drawn).values(), drift]]
            writer.writerow([f"{name}_{number:03d}", name, split_of(number), *values])


def _cell(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(_cell(item) for item in value)
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _readme(about: dict[str, Any]) -> str:
    spec = ", ".join(f"{key} {about[key]}" for key in ("version", "seed", "size", "kind"))
    return f"""# Synthetic clips: no camera has seen them, no person moves in them

Drawn and encoded by `taghead.data.synthetic` ({spec}): an articulated figure that does one of
{len(about["classes"])} things, {about["clips_per_class"]} clips each,
{WIDTH} x {HEIGHT} pixels, 24 to 80 frames at {FRAMES_PER_SECOND} a second.
A score on these clips says that code works, and what it can tell apart here.
It says nothing about FineGym, HAA500 or any real video.

- `video/<class>/<class>_NNN.mp4`; NNN modulo 20: 0 to 15 train, 16 val, 17 to 19 test
- `clips.csv`: what was drawn for each clip, the camera's drift among it; the same for the clips of one number
  in classes that only time tells apart, in training in all classes. Lengths in frames, places and drift in pixels,
  angles in degrees, but in radians for stance and idle arm
- `synthetic.json`: the above for programs, and the groups of classes that only the order of the frames tells apart"""
