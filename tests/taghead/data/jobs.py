"""What the workers of test_parallel do: importable by name, as a spawned process needs it."""

import os
import signal
import time
from pathlib import Path


def square(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 5:
        raise ValueError("five")
    return number * number


def linger(path: Path) -> None:
    """Works on a file for ever, and clears it away when it is told to end."""
    try:
        path.touch()
        while True:
            time.sleep(0.01)
    finally:
        path.unlink(missing_ok=True)


def crash(_: int) -> int:
    os._exit(1)
