"""A time limit (``--trial-timeout``): the process of a trial that does not end in time ends itself, and says where.

A thread of the interpreter's own, which needs no lock of it, watches the clock: it ends the process even where C code
never comes back. Whoever takes the trial over finds the note.
"""

import faulthandler
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from taghead.files import write_text

NOTE = "deadline.txt"  # in the folder of a trial that is run under a limit
_FIRST = re.compile(r"limit (?P<seconds>\S+) s, thread (?P<thread>0x[0-9a-f]+)\n")
_FRAME = re.compile(r'File "(?P<file>.*)", line (?P<line>\d+) in (?P<name>.*)')
_OVER = "Timeout ("  # what faulthandler begins its dump with


@contextmanager
def limit(folder: Path, seconds: float | None) -> Iterator[None]:
    """Ends this process if the block takes too long, with a note in a folder; one block a process at a time.

    Args:
        folder: Where the note is left, with the frames of all threads.
        seconds: How long the block may take; None: as long as it likes.
    """
    if seconds is None:
        yield
        return
    with (folder / NOTE).open("w", encoding="utf-8") as file:
        file.write(f"limit {seconds:g} s, thread 0x{threading.get_ident():016x}\n")
        file.flush()
        faulthandler.dump_traceback_later(seconds, exit=True, file=file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            with suppress(OSError):
                (folder / NOTE).unlink()


def leave(folder: Path, seconds: float) -> None:
    """Leaves the note for a process of another machine that ran out of time, whose own cannot be read from here."""
    write_text(folder / NOTE, f"limit {seconds:g} s, thread 0x0\n{_OVER}on another machine, which keeps the frames)\n")


def passed(folder: Path) -> tuple[str, str] | None:
    """What a process that ran out of time has left: one line that says where it hung, and the frames of its threads.

    A note of a process that ended otherwise says nothing, and is removed.
    """
    try:
        text = (folder / NOTE).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    first = _FIRST.match(text)
    if first is None or _OVER not in text:
        (folder / NOTE).unlink()
        return None
    stack = text.rpartition(f"Thread {first['thread']}")[2]
    frame = _FRAME.search(stack)
    where = f"; it hung at {frame['file']}:{frame['line']} {frame['name']}" if frame else ""
    return f"no end within {first['seconds']} s (--trial-timeout){where}", text
