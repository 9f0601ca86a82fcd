"""What the command lines share: a user's mistake is one line and exit status 2, our own bugs keep their traceback.

A path that cannot be read or written is the user's too: they named it, or own the disk.
"""

import atexit
import gc
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from taghead.errors import InputError


def run_app(app: Callable[[], Any]) -> None:
    """Runs a command-line app, and prints an `InputError` without its traceback.

    Args:
        app: The typer app. It ends by itself, quietly and with status 1, where its reader (`head` say) has seen enough.
    """
    look_for_garbage_less()
    atexit.register(gc.freeze)  # at the end Python would look through all of them once more, for a second
    try:
        app()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}.", file=sys.stderr)
        sys.exit(2)


def look_for_garbage_less() -> None:
    """Loading torch, Ray or pandas makes hundreds of thousands of objects, all of which stay: a tenth of its time."""
    gc.set_threshold(5_000)  # 700 by itself in Python 3.11


class Progress:
    """How many of how many, on standard error: one line that changes on a terminal, a line each tenth elsewhere.

    Args:
        what: What is counted.
    """

    def __init__(self, what: str) -> None:
        self._what, self._told, self._live = what, 0, sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live and self._told:
            print(file=sys.stderr)

    def show(self, done: int, total: int) -> None:
        """Tells how far it is.

        Args:
            done: So many are done.
            total: Of so many.
        """
        step = max(1, total // (1000 if self._live else 10))
        if done < self._told + step and done < total:
            return
        self._told = done
        text = f"{done:,} of {total:,} {self._what}"
        print(f"\r{text}" if self._live else text, end="" if self._live else "\n", file=sys.stderr, flush=True)
