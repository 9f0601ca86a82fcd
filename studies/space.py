"""What a search may choose: `Choice` and `Range`, as values; no sampler is loaded by them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from taghead.errors import InputError


@dataclass(frozen=True)
class Choice:
    """One of some values.

    Attributes:
        values: Numbers, texts, booleans, None, or tuples of texts.
        only_if: Keys, with the values of theirs under which this one is searched at all; else it stays as in the base.
    """

    values: tuple[Any, ...]
    only_if: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.values, tuple | list):
            raise InputError(f"a choice is given as Choice((0.1, 0.2)), but got {self.values!r}.")
        _check_condition(self.only_if)
        if not self.values or len({text_of(value) for value in self.values}) < len(self.values):
            raise InputError(f"a choice is between different values, but got {self.values}.")

    def all_values(self) -> tuple[Any, ...]:
        """All of its values."""
        return self.values


@dataclass(frozen=True)
class Range:
    """A number from low to high, both included; a whole one where both ends are whole.

    Attributes:
        low: The lowest.
        high: The highest.
        log: Whether the logarithm is drawn evenly, rather than the number.
        step: Between two values; None for all of them.
        only_if: As in `Choice`.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    only_if: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_condition(self.only_if)
        for value in (self.low, self.high, self.step):
            if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
                raise InputError(f"the ends and the step of a range are numbers, but got {value!r}.")
        rule = "low < high and step > 0, if any, must hold, and with log also 0 < low and no step"
        if not self.low < self.high or not (self.step is None or self.step > 0):
            raise InputError(f"{rule}, but got {self}.")
        if self.log and (self.low <= 0 or self.step):
            raise InputError(f"{rule}, but got {self}.")

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int) and isinstance(self.step or 1, int)

    def all_values(self) -> tuple[float, ...] | None:
        """All of its values, or None where they have no end."""
        if self.step is None and not self.whole:
            return None
        step = self.step or 1
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        return tuple(self.low + number * step for number in range(count))


Space = Mapping[str, Choice | Range]  # by dotted key


def text_of(value: Any) -> str:
    """How a value is written in a label: several names joined by ``+``, an empty tuple as ``none``."""
    if isinstance(value, tuple | list):
        return "+".join(str(part) for part in value) or "none"
    return str(value)


def _check_condition(only_if: Any) -> None:
    well = isinstance(only_if, Mapping) and all(isinstance(values, tuple | list) for values in only_if.values())
    if not well:
        raise InputError(f'only_if is given as {{"head.readout": ("max",)}}, but got {only_if!r}.')
