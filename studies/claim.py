"""Who works on a trial: a numbered claim in its folder, a heartbeat, and the rule by which a claim is stale.

A claim is ``claim.<n>.json``, made so that only one process can make number n; the highest number counts, and n is the
attempt. Given back, it is ``claim.<n>.released.json``. It names host, machine, boot, process-id space, process and the
process's start, so that a later process on that machine knows at once whether the worker still lives, whatever the
clocks say. A worker that cannot be seen from here renews the file's time: it counts as dead when that is long ago (or
far ahead, as where a clock was set back) and stays as it is while this process watches it by a clock that nobody sets.
"""

import errno
import hashlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from taghead.files import hidden_beside

BEAT = 5.0  # seconds between two heartbeats
SILENCE = 180.0  # seconds without one after which a worker that cannot be seen is taken for dead
WATCH = 20.0  # seconds for which such a claim is watched, before it is taken over
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)
_seen: dict[Path, tuple[float, float]] = {}  # by claim: its time, and since when (monotonic) it has that
_CLAIM = re.compile(r"claim\.(\d+)(\.released)?\.json")


@dataclass(frozen=True)
class Worker:
    """A process, named so that no other one on any machine at any time is named the same."""

    host: str
    boot: str
    space: str  # of process ids: containers on one host have their own
    pid: int
    start: str
    machine: str = ""  # tells hosts of one name apart; empty where there is none, and in claims of older versions

    def is_gone(self) -> bool | None:
        """Whether it has ended for certain; None where that cannot be seen from here."""
        me = this_worker()
        if self.host != me.host or (self.machine and self.machine != me.machine):
            return None
        if self.boot and self.boot != me.boot:
            return True
        if self.space != me.space:
            return None
        if not _exists(self.pid):
            return True
        start = _start(self.pid)
        if self.start and not start:  # a /proc that hides the processes of other users
            return None
        return self.start != start


def this_worker() -> Worker:
    """The process that asks."""
    boot = _read(Path("/proc/sys/kernel/random/boot_id")).strip()
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    names = {"host": socket.gethostname(), "machine": _machine(), "boot": boot, "space": space}
    return Worker(**names, pid=os.getpid(), start=_start(os.getpid()))


def latest(folder: Path) -> int:
    """The highest number of a claim in a folder; 0 if there is none."""
    try:
        matches = [_CLAIM.fullmatch(name) for name in os.listdir(folder)]
    except FileNotFoundError:
        return 0
    return max((int(match[1]) for match in matches if match), default=0)


def is_held(folder: Path, number: int) -> bool:
    """Whether this process still holds a claim: a later one, or another's under the same number, took its place."""
    if latest(folder) != number:
        return False
    try:
        values = json.loads((folder / f"claim.{number}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return values == asdict(this_worker())


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
    if _is_live(folder, number, watch=True):
        return None
    path = folder / f"claim.{number + 1}.json"
    beside = hidden_beside(path)
    try:
        beside.write_text(json.dumps(asdict(this_worker())), encoding="utf-8")
        _make(path, beside)
    except (FileExistsError, FileNotFoundError):  # another was quicker; or finished and moved the folder away
        return None
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
    return number + 1


def _make(path: Path, beside: Path) -> None:
    """Makes a file that only one process can make, and makes it whole, where the file system has links."""
    try:
        os.link(beside, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with path.open("x", encoding="utf-8") as file:
            file.write(beside.read_text(encoding="utf-8"))


def release(folder: Path, number: int) -> None:
    """Gives a claim back: the next process may take it at once, and finds the folder as it is.

    A new name needs no room on a full disk.
    """
    (folder / f"claim.{number}.json").rename(folder / f"claim.{number}.released.json")


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


def _is_live(folder: Path, number: int, *, watch: bool = False) -> bool:
    path, changed = folder / f"claim.{number}.json", 0.0
    try:
        with path.open(encoding="utf-8") as file:
            changed = os.fstat(file.fileno()).st_mtime
            values: dict[str, Any] = json.load(file)
        if values.pop("released", False):  # as older versions gave it back
            return False
        gone = Worker(**values).is_gone()
    except FileNotFoundError:  # never claimed, given back, or finished in between
        return False
    except (ValueError, TypeError, KeyError, AttributeError):  # not yet written, or torn by a crash
        gone = None
    if gone is not None:
        return not gone
    silent = abs(time.time() - changed) >= SILENCE
    return not silent or (watch and _unchanged(path, changed) < WATCH)


def _unchanged(path: Path, changed: float) -> float:
    """For how many seconds this process has seen a file with the same time."""
    now = time.monotonic()
    before, since = _seen.setdefault(path, (changed, now))
    if before != changed:
        _seen[path] = (changed, since := now)
    return now - since


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _machine() -> str:
    """What tells this machine from others of its name, if anything does; made of its id, which is not to be shown."""
    name = _read(Path("/etc/machine-id")).strip()
    return hashlib.sha256(name.encode()).hexdigest()[:16] if name else ""


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
