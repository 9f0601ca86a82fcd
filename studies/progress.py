"""What a running study shows: trials done, running with their epoch and loss, failed, and the time that is left.

On a terminal a few lines that renew themselves; in a log file a line for each trial that ends and, at most every ten
seconds, one for the whole.
"""

import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from studies.study import METRICS
from studies.trial import FINAL, Outcome, Row, Trial

EVERY = 10.0  # seconds between two lines for the whole in a log
_STYLES = {"complete": "green", "taken": "dim", "lost": "yellow", "interrupted": "yellow"}


class Progress:
    """Looks on while an executor works, and tells; used as ``with Progress(trials, ...) as progress``.

    Args:
        trials: What is to be done.
        there: How many trials of the studies were there before.
        to_come: How many more there will be at the most, which a search has not chosen yet.
        console: Where to write; standard output if None.
    """

    def __init__(
        self, trials: Sequence[Trial], *, there: int, to_come: int = 0, console: Console | None = None
    ) -> None:
        self._console = console or Console(soft_wrap=True, highlight=False)
        self._there = there
        self._left = {trial.trial_id: float(trial.config.train.epochs) for trial in trials}  # epochs
        self._seen = set(self._left)
        self._to_come = to_come
        self._total = len(self._left) + there + to_come
        self._running: dict[str, tuple[Trial, Row]] = {}
        self._endings: Counter[str] = Counter()
        self._refusals: set[str] = set()  # those that were told
        self._epochs = 0
        self._began = time.monotonic()
        self._said = 0.0
        self._live = Live(get_renderable=self._picture, console=self._console, refresh_per_second=2, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def began(self, trial: Trial) -> None:
        """A worker has begun a trial."""
        if not self._running and not self._epochs:
            self._began = time.monotonic()  # what Ray takes to start says nothing of the trials
        self._running[trial.trial_id] = (trial, {})
        if trial.trial_id not in self._seen:
            self._seen.add(trial.trial_id)
            self._left[trial.trial_id] = float(trial.config.train.epochs)
            self._to_come = max(0, self._to_come - 1)

    def epoch(self, trial: Trial, row: Row) -> None:
        """A trial has finished an epoch."""
        self._running[trial.trial_id] = (trial, row)
        self._left[trial.trial_id] = float(row.get("epochs", 0) - row.get("epoch", 0))
        self._epochs += 1
        if not self._console.is_terminal and time.monotonic() - self._said >= EVERY:
            self._said = time.monotonic()
            self._say(Text("; ".join([self._summary(), *self._lines()])))

    def ended(self, trial: Trial, outcome: Outcome) -> None:
        """A trial has ended, for good or not."""
        self._running.pop(trial.trial_id, None)
        said = "another driver runs it" if outcome.ending == "taken" else outcome.message
        if outcome.ending not in ("taken", "lost") and not outcome.out_of_memory:  # those come again
            self._left.pop(trial.trial_id, None)
            self._endings[outcome.ending] += 1
        if outcome.ending == "complete":
            said = ", ".join(f"{name} {outcome.metrics[name]:.1%}" for name in METRICS if name in outcome.metrics)
        if outcome.ending == "refused":
            said = "for the same reason" if said in self._refusals else said
            self._refusals.add(outcome.message)
        line = Text(f"{outcome.ending:9} ", style=_STYLES.get(outcome.ending, "red"))
        self._say(line.append(f"{trial.label}  ", style="default").append(said, style="default"))

    def _say(self, text: Text) -> None:
        self._console.print(Text(f"{datetime.now():%H:%M:%S} ", style="dim").append(text))

    def _summary(self) -> str:
        done = self._there + sum(self._endings[ending] for ending in FINAL)
        parts = [f"{done} of {self._total} trials done", f"{len(self._running)} running"]
        parts += [f"{number} {ending}" for ending, number in sorted(self._endings.items()) if ending != "complete"]
        return ", ".join([*parts, self._time_left()])

    def _time_left(self) -> str:
        if not self._epochs:
            return "starting"
        of_each = sum(self._left.values()) / max(len(self._left), 1)
        seconds = (sum(self._left.values()) + self._to_come * of_each) * (time.monotonic() - self._began) / self._epochs
        return f"about {timedelta(seconds=round(seconds))} left"

    def _lines(self) -> list[str]:
        return [f"{trial.label}: {_epoch(row)}" for trial, row in self._running.values() if row]

    def _picture(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for trial, row in self._running.values():
            table.add_row(Text(f"  {trial.label}"), Text(_epoch(row) if row else "starting", style="dim"))
        return Group(table, Text(self._summary(), style="bold"))


def _epoch(row: Row) -> str:
    text = f"epoch {row.get('epoch', '?')}/{row.get('epochs', '?')}"
    return f"{text}, loss {row['loss']:.3f}" if isinstance(row.get("loss"), float) else text
