"""The articulated figure of the synthetic clips: a pose in 3D, seen by a raised camera and drawn as soft capsules.

Axes: T frames; K capsules; S the two sides of the body, left first; h w the pixels of a frame; n those of a window.
The body's own frame has x to its left, y up and z to its front, and is about 1 high; a figure with yaw 0 looks into
the camera, and a growing yaw is a turn to its left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Float, Float32, Int

_THIGH = _SHIN = 0.25
_UPPER_ARM = _FOREARM = 0.19
_SPINE = 0.31
_HALF_HIP, _HALF_SHOULDER = 0.09, 0.17

# One row a capsule: its two end points (names of `_joints`), its radius, and the colour it takes from the palette.
_CAPSULES = (
    ("pelvis", "chest", 0.085, "torso"),
    ("hip_l", "hip_r", 0.075, "torso"),
    ("shoulder_l", "shoulder_r", 0.065, "torso"),
    ("belly_front", "chest_front", 0.075, "front"),
    ("belly_back", "chest_back", 0.085, "back"),
    ("head", "head", 0.095, "back"),
    ("face", "face", 0.078, "skin"),
    ("nose", "nose_tip", 0.024, "front"),
    ("shoulder_l", "elbow_l", 0.046, "left"),
    ("elbow_l", "hand_l", 0.042, "left"),
    ("shoulder_r", "elbow_r", 0.046, "right"),
    ("elbow_r", "hand_r", 0.042, "right"),
    ("hip_l", "knee_l", 0.056, "left"),
    ("knee_l", "foot_l", 0.050, "left"),
    ("hip_r", "knee_r", 0.056, "right"),
    ("knee_r", "foot_r", 0.050, "right"),
    ("foot_l", "toe_l", 0.042, "skin"),
    ("foot_r", "toe_r", 0.042, "skin"),
)
PALETTE = ("torso", "front", "back", "skin", "left", "right")


@dataclass(frozen=True, slots=True)
class Pose:
    """What the figure does in each frame; angles in radians, lengths in body heights.

    Attributes:
        yaw: Facing, counted to the figure's left; 0 looks into the camera.
        bow: Torso forward.
        squat: 0 upright to 1 deep in the knees.
        hop: Height above the ground.
        shift: Way to the right of the picture, as the camera sees it.
        approach: Way towards the camera, which the figure's size in the picture follows.
        arm_out: Arms sideways, 0 hanging and pi straight up.
        arm_forward: Arms forward.
        elbow: Bend of the elbows.
        leg_out: Legs sideways.
        leg_forward: Thighs forward.
        knee: Bend of the knees.
    """

    yaw: Float[np.ndarray, " T"]
    bow: Float[np.ndarray, " T"]
    squat: Float[np.ndarray, " T"]
    hop: Float[np.ndarray, " T"]
    shift: Float[np.ndarray, " T"]
    approach: Float[np.ndarray, " T"]
    arm_out: Float[np.ndarray, "T S"]
    arm_forward: Float[np.ndarray, "T S"]
    elbow: Float[np.ndarray, "T S"]
    leg_out: Float[np.ndarray, "T S"]
    leg_forward: Float[np.ndarray, "T S"]
    knee: Float[np.ndarray, "T S"]

    @classmethod
    def at_rest(cls, num_frames: int) -> "Pose":
        """The upright figure, arms hanging, in every frame."""
        return cls(**{f.name: np.zeros((num_frames, 2) if f.name in _PAIRED else num_frames) for f in fields(cls)})

    def plus(self, **moves: Float[np.ndarray, "..."] | float) -> "Pose":
        """The same pose with something added to some of its values, spread over frames and sides as needed."""
        return replace(self, **{name: getattr(self, name) + move for name, move in moves.items()})


_PAIRED = ("arm_out", "arm_forward", "elbow", "leg_out", "leg_forward", "knee")


@dataclass(frozen=True, slots=True)
class Camera:
    """How the figure is seen.

    Attributes:
        elevation: Angle of the camera above the horizon, radians.
        height: Pixels that one body height takes.
        feet: Place of the figure's ground point in each frame, pixels from the left and from the top.
    """

    elevation: float
    height: float
    feet: Float[np.ndarray, "T 2"]


def _limb(
    forward: Float[np.ndarray, "T S"], out: Float[np.ndarray, "T S"], length: float
) -> Float[np.ndarray, "T S 3"]:
    """From a joint to the next one, for a limb that hangs down at rest."""
    side = np.array([1.0, -1.0])
    down = np.cos(out) * np.cos(forward)
    return length * np.stack([side * np.sin(out), -down, np.cos(out) * np.sin(forward)], axis=-1)


def _joints(pose: Pose) -> dict[str, Float[np.ndarray, "T 3"]]:
    """The end points of every capsule in the body's frame, the lower foot on the ground (or `hop` above it)."""
    side = np.array([[1.0, 0, 0], [-1.0, 0, 0]])
    bend = 1.25 * pose.squat[:, None]
    hip = np.zeros((len(pose.yaw), 2, 3)) + _HALF_HIP * side
    knee = hip + _limb(pose.leg_forward + bend, pose.leg_out, _THIGH)
    foot = knee + _limb(pose.leg_forward + bend - pose.knee - 2 * bend, pose.leg_out, _SHIN)
    lift = np.stack([np.zeros_like(pose.hop), pose.hop - foot[..., 1].min(axis=1), np.zeros_like(pose.hop)], axis=-1)
    lean = pose.bow + 0.35 * pose.squat
    up = np.stack([np.zeros_like(lean), np.cos(lean), np.sin(lean)], axis=-1)
    front = np.stack([np.zeros_like(lean), -np.sin(lean), np.cos(lean)], axis=-1)
    shoulder = (_SPINE * up)[:, None] + _HALF_SHOULDER * side
    elbow = shoulder + _limb(pose.arm_forward, pose.arm_out, _UPPER_ARM)
    hand = elbow + _limb(pose.arm_forward + pose.elbow, pose.arm_out, _FOREARM)
    head = (_SPINE + 0.155) * up
    body = {
        "pelvis": 0.02 * up,
        "chest": (_SPINE - 0.03) * up,
        "belly_front": 0.10 * up + 0.055 * front,
        "chest_front": 0.25 * up + 0.055 * front,
        "belly_back": 0.10 * up - 0.05 * front,
        "chest_back": 0.26 * up - 0.05 * front,
        "head": head - 0.015 * front,
        "face": head + 0.045 * front,
        "nose": head + 0.10 * front,
        "nose_tip": head + 0.15 * front,
    }
    toe = foot + np.array([0.0, -0.01, 0.09])
    pairs = {"hip": hip, "knee": knee, "foot": foot, "toe": toe, "shoulder": shoulder, "elbow": elbow, "hand": hand}
    for name, both in pairs.items():
        body |= {f"{name}_l": both[:, 0], f"{name}_r": both[:, 1]}
    return {name: point + lift for name, point in body.items()}


def project(pose: Pose, camera: Camera) -> tuple[Float[np.ndarray, "T K 2 3"], Float[np.ndarray, "T K"]]:
    """Where the camera sees the capsules.

    Args:
        pose: What the figure does.
        camera: How it is seen.

    Returns:
        The end points (pixels from the left, pixels from the top, pixels towards the camera) and the radii in pixels.
    """
    joints = _joints(pose)
    ends = np.stack([np.stack([joints[a], joints[b]], axis=1) for a, b, *_ in _CAPSULES], axis=1)
    yaw, tilt = pose.yaw[:, None, None], camera.elevation
    x = ends[..., 0] * np.cos(yaw) + ends[..., 2] * np.sin(yaw)
    z = ends[..., 2] * np.cos(yaw) - ends[..., 0] * np.sin(yaw)
    up = ends[..., 1] * np.cos(tilt) - z * np.sin(tilt)
    towards = z * np.cos(tilt) + ends[..., 1] * np.sin(tilt)
    scale = camera.height / (1.0 - pose.approach)
    seen = np.stack([x + pose.shift[:, None, None], -up, towards], axis=-1) * scale[:, None, None, None]
    seen[..., :2] += camera.feet[:, None, None]
    return seen, scale[:, None] * np.array([radius for *_, radius, _ in _CAPSULES])


def _window(low: Float[np.ndarray, " T"], high: Float[np.ndarray, " T"], size: int) -> Int[np.ndarray, "T n"]:
    """For each frame the pixels, equally many, that hold all that is drawn in it."""
    num = min(size, int(np.ceil((high - low).max())) + 2)
    start = np.clip(np.floor((low + high - num) / 2), 0, size - num).astype(int)
    return start[:, None] + np.arange(num)


def draw(
    frames: Float32[np.ndarray, "T h w 3"], pose: Pose, camera: Camera, palette: Mapping[str, Sequence[float]]
) -> None:
    """Draw the figure into the frames, in place, from the farthest capsule to the nearest, with soft edges.

    Args:
        frames: Background, RGB, 0 to 255; in C order.
        pose: What the figure does.
        camera: How it is seen.
        palette: A colour, RGB, 0 to 255, for each name in `PALETTE`.
    """
    ends, radii = (a.astype(np.float32) for a in project(pose, camera))
    colours = np.array([palette[name] for *_, name in _CAPSULES], dtype=np.float32)
    every, pixels = np.arange(len(frames)), frames.reshape(-1, 3)
    depth = ends[..., 2].mean(axis=2)
    # What is nearer is lighter: the only light there is, and one more sign of which way a turn goes.
    light = np.clip(1 + 0.9 * (depth - depth.mean(axis=1, keepdims=True)) / camera.height, 0.55, 1.35)
    for far in np.argsort(depth, axis=1).T:
        of_frame, radius = ends[every, far, :, :2], radii[every, far][:, None]
        low, high = of_frame.min(axis=1) - radius - 1, of_frame.max(axis=1) + radius + 1
        columns, rows = (_window(low[:, i], high[:, i], frames.shape[2 - i]) for i in range(2))
        px, py = columns[:, None, :].astype(np.float32), rows[:, :, None].astype(np.float32)
        (ax, ay), (bx, by) = (of_frame[:, i].T[..., None, None] for i in range(2))
        dx, dy = bx - ax, by - ay
        along = np.clip(((px - ax) * dx + (py - ay) * dy) / np.maximum(dx * dx + dy * dy, 1e-6), 0, 1)
        right, down = px - ax - along * dx, py - ay - along * dy
        # Most pixels of a window are not covered; those are left as they are.
        frame, row, column = np.nonzero(right * right + down * down < np.square(radius + 1)[..., None])
        distance = np.hypot(right[frame, row, column], down[frame, row, column])
        cover = np.clip(radius[frame, 0] + 0.5 - distance, 0, 1)[:, None]
        colour = np.minimum(colours[far] * light[every, far][:, None], 255)[frame]
        covered = np.ravel_multi_index((frame, rows[frame, row], columns[frame, column]), frames.shape[:3])
        seen = pixels[covered]
        pixels[covered] = seen + cover * (colour - seen)
