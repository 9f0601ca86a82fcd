"""Who works on a trial: a numbered claim in its folder, a heartbeat, and the rule by which a claim is stale.

A claim is ``claim.<n>.json``, made so that only one process can make number n; the highest number counts, and n is the
attempt. It names host, boot, process-id space, process and the process's start, so that a later process on that machine
knows at once whether the worker still lives; elsewhere the file's time, which the worker renews, has to tell.
"""

import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from taghead.files import write_text

BEAT = 5.0  # seconds between two heartbeats
SILENCE = 180.0  # seconds without one after which a worker that cannot be seen is taken for dead
_CLAIM = re.compile(r"claim\.(\d+)\.json")


@dataclass(frozen=True)
class Worker:
    """A process, named so that no other one on any machine at any time is named the same."""

    host: str
    boot: str
    space: str  # of process ids: containers on one host have their own
    pid: int
    start: str

    def is_gone(self) -> bool | None:
        """Whether it has ended for certain; None where that cannot be seen from here."""
        me = this_worker()
        if self.host != me.host:
            return None
        if self.boot and self.boot != me.boot:
            return True
        if self.space != me.space:
            return None
        return not _exists(self.pid) or self.start != _start(self.pid)


def this_worker() -> Worker:
    """The process that asks."""
    boot = _read(Path("/proc/sys/kernel/random/boot_id")).strip()
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return Worker(host=socket.gethostname(), boot=boot, space=space, pid=os.getpid(), start=_start(os.getpid()))


def latest(folder: Path) -> int:
    """The highest number of a claim in a folder; 0 if there is none."""
    try:
        matches = [_CLAIM.fullmatch(name) for name in os.listdir(folder)]
    except FileNotFoundError:
        return 0
    return max((int(match[1]) for match in matches if match), default=0)


def is_live(folder: Path) -> bool:
    """Whether somebody works in a folder."""
    return _is_live(folder, latest(folder))


def take(folder: Path) -> int | None:
    """Claims a folder, making it if need be.

    Returns:
        The number of the claim, or None where somebody else holds it or was quicker.

    Raises:
        OSError: The folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    number = latest(folder)  # once: whoever is quicker makes our next number, and we see that it is taken
    if _is_live(folder, number):
        return None
    try:
        with (folder / f"claim.{number + 1}.json").open("x", encoding="utf-8") as file:
            json.dump({"released": False, **asdict(this_worker())}, file)
    except (FileExistsError, FileNotFoundError):  # another was quicker; or finished and moved the folder away
        return None
    return number + 1


def release(folder: Path, number: int) -> None:
    """Gives a claim back: the next process may take it at once, and finds the folder as it is."""
    write_text(folder / f"claim.{number}.json", json.dumps({"released": True, **asdict(this_worker())}))


def clear(folder: Path) -> None:
    """Removes what claims have left in a folder."""
    for path in folder.glob("claim.*.json"):
        path.unlink(missing_ok=True)


@contextmanager
def heartbeat(folder: Path, number: int) -> Iterator[None]:
    """Renews a claim's file time from a thread of its own while the block runs."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(BEAT):
            try:
                os.utime(folder / f"claim.{number}.json")
            except OSError:  # a full or unreachable disk: the trial's own writes will tell
                continue

    thread = threading.Thread(target=beat, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _is_live(folder: Path, number: int) -> bool:
    path = folder / f"claim.{number}.json"
    try:
        silent = time.time() - path.stat().st_mtime
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("released"):
            return False
        gone = Worker(**values).is_gone()
    except FileNotFoundError:  # never claimed, or finished in between
        return False
    except (ValueError, TypeError, KeyError):  # not yet written, or torn by a crash
        gone = None
    return silent < SILENCE if gone is None else not gone


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _start(pid: int) -> str:
    """When a process started, in the kernel's ticks; empty where there is no /proc, ``ended`` for a zombie."""
    words = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    if len(words) < 20:
        return ""
    return "ended" if words[0] in "ZX" else words[19]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
