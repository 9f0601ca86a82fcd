"""Where driver and workers leave what they say to each other. Loads nothing, so that it is up at once."""

from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

LISTEN = 0.5  # seconds after which workers that wait are looked at again, though none said anything
Said = tuple[Any, ...]  # the worker, the word, and what belongs to it


class Switchboard:
    """An actor beside the driver; whoever waits in `hear` holds one of its threads, the other calls have their own."""

    def __init__(self) -> None:
        self._said: SimpleQueue[Said] = SimpleQueue()
        self._answers: dict[str, SimpleQueue[Any]] = {}

    def say(self, *said: Any) -> None:
        """Leaves a worker's word for the driver."""
        self._said.put(said)

    def hear(self, worker: str) -> Any:
        """Waits for the driver's next answer to a worker."""
        return self._answers_to(worker).get()

    def turn(self, answers: list[tuple[str, Any]]) -> list[Said]:
        """Passes the driver's answers on, and gives it what was said, as soon as there is something."""
        for worker, answer in answers:
            self._answers_to(worker).put(answer)
        said = []
        with suppress(Empty):
            said.append(self._said.get(timeout=LISTEN))
            while True:
                said.append(self._said.get_nowait())
        return said

    def _answers_to(self, worker: str) -> "SimpleQueue[Any]":
        return self._answers.setdefault(worker, SimpleQueue())
