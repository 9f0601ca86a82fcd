"""The classes of the synthetic clips, fine-grained and coarse: what each adds to the figure's pose over time.

Axes: T frames; S the two sides of the body, left first.
A motion takes its progress (0 before it starts, 1 when it is over) and a number of repeats, which only coarse motions
read, and gives what it adds to `Pose`. The fine classes of one group in `TIME_ALONE` show the same poses for the same
share of the time (a turn from any facing, to either side; two phases in either order; one slow hop or two quick ones):
the set of a clip's frames, without their order, cannot tell them apart.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

Moves = dict[str, Float[np.ndarray, "..."]]
Motion = Callable[[Float[np.ndarray, " T"], float], Moves]

_LEFT, _RIGHT, _BOTH = np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.array([1.0, 1.0])


def _bump(u: Float[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
    """There and back once while u goes from 0 to 1, and nothing outside."""
    return np.sin(np.pi * np.clip(u, 0, 1)) ** 2


def _beat(u: Float[np.ndarray, " T"], repeats: float) -> Float[np.ndarray, " T"]:
    """There and back `repeats` times."""
    return np.sin(np.pi * repeats * u) ** 2


def _wave(u: Float[np.ndarray, " T"], repeats: float) -> Float[np.ndarray, " T"]:
    """To both sides of zero, `repeats` times."""
    return np.sin(2 * np.pi * repeats * u)


def _turn(turns: float) -> Motion:
    return lambda u, _: {"yaw": 2 * np.pi * turns * u}


def _raise_arms(b: Float[np.ndarray, " T"]) -> Moves:
    return {"arm_out": 2.6 * b[:, None] * _BOTH}


def _squat(b: Float[np.ndarray, " T"]) -> Moves:
    return {"squat": b}


def _bow(b: Float[np.ndarray, " T"]) -> Moves:
    return {"bow": 1.35 * b}


def _kick(b: Float[np.ndarray, " T"]) -> Moves:
    return {"leg_forward": 1.5 * b[:, None] * _RIGHT}


def _hop(b: Float[np.ndarray, " T"]) -> Moves:
    return {"hop": 0.19 * b}


def _in_order(first: Callable[..., Moves], second: Callable[..., Moves]) -> Motion:
    return lambda u, _: first(_bump(2 * u)) | second(_bump(2 * u - 1))


def _hops(count: int) -> Motion:
    return lambda u, _: _hop(_beat(u, count))


FINE: dict[str, Motion] = {
    "turn_half_left": _turn(0.5),
    "turn_half_right": _turn(-0.5),
    "turn_one_left": _turn(1.0),
    "turn_one_right": _turn(-1.0),
    "turn_one_and_half_left": _turn(1.5),
    "turn_one_and_half_right": _turn(-1.5),
    "raise_arms_then_squat": _in_order(_raise_arms, _squat),
    "squat_then_raise_arms": _in_order(_squat, _raise_arms),
    "bow_then_kick": _in_order(_bow, _kick),
    "kick_then_bow": _in_order(_kick, _bow),
    "hop_once": _hops(1),
    "hop_twice": _hops(2),
}

TIME_ALONE: tuple[tuple[str, ...], ...] = (
    ("turn_half_left", "turn_half_right"),
    ("turn_one_left", "turn_one_right"),
    ("turn_one_and_half_left", "turn_one_and_half_right"),
    ("raise_arms_then_squat", "squat_then_raise_arms"),
    ("bow_then_kick", "kick_then_bow"),
    ("hop_once", "hop_twice"),
)


def _stride(u: Float[np.ndarray, " T"], repeats: float, height: float) -> Moves:
    swing = height * _wave(u, repeats)[:, None]
    return {"leg_forward": swing * (_LEFT - _RIGHT), "arm_forward": swing * (_RIGHT - _LEFT)}


def _walk(across: float) -> Motion:
    return lambda u, repeats: _stride(u, repeats, 0.5) | {"shift": across * (u - 0.5)}


def _come(towards: float) -> Motion:
    return lambda u, repeats: _stride(u, repeats, 0.5) | {"approach": towards * (u - 0.5)}


def _march(u: Float[np.ndarray, " T"], repeats: float) -> Moves:
    wave = _wave(u, repeats)[:, None]
    lifted = np.maximum(wave, 0) * _LEFT + np.maximum(-wave, 0) * _RIGHT
    return {"leg_forward": 1.3 * lifted, "knee": 1.5 * lifted}


def _jumping_jacks(u: Float[np.ndarray, " T"], repeats: float) -> Moves:
    beat = _beat(u, repeats)[:, None]
    return {"arm_out": 2.6 * beat * _BOTH, "leg_out": 0.5 * beat * _BOTH}


def _wave_arm(side: Float[np.ndarray, " S"]) -> Motion:
    return lambda u, repeats: {
        "arm_out": (1.9 * np.minimum(1, 6 * _bump(u)) + 0.5 * _wave(u, repeats))[:, None] * side,
    }


COARSE: dict[str, Motion] = {
    "bows_again_and_again": lambda u, repeats: _bow(_beat(u, repeats)),
    "jumps": lambda u, repeats: _hop(_beat(u, repeats)),
    "jumping_jacks": _jumping_jacks,
    "kicks_again_and_again": lambda u, repeats: _kick(_beat(u, repeats)),
    "keeps_turning_left": lambda u, repeats: _turn(0.55 * repeats)(u, 1),
    "keeps_turning_right": lambda u, repeats: _turn(-0.55 * repeats)(u, 1),
    "lowers_arms": lambda u, _: _raise_arms(1 - u),
    "lifts_arms": lambda u, _: _raise_arms(u),
    "marches_on_the_spot": _march,
    "sits_down": lambda u, _: _squat(u),
    "stands_up": lambda u, _: _squat(1 - u),
    "walks_across_to_the_left": _walk(-0.9),
    "walks_across_to_the_right": _walk(0.9),
    "walks_away": _come(-0.6),
    "walks_towards": _come(0.6),
    "waves_left_arm": _wave_arm(_LEFT),
    "waves_right_arm": _wave_arm(_RIGHT),
}
