"""Work spread over processes or threads.

A process that dies loses one item, and an interrupt ends all of them at once, cleanly. Threads read ahead, in order.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
MOST_WORKERS = 16

_at_work = False  # in a worker: whether it is in the middle of an item


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], *, num_threads: int, most: int
) -> Generator[tuple[Item, Result], None, None]:
    """Each item with the function's result for it, in the order of the items, made ahead by threads.

    Args:
        function: What it raises reaches the caller at its item.
        items: Which ones.
        num_threads: How many calls run at once; 0 makes each result when it is asked for.
        most: Items that are under way or wait at once.
    """
    if num_threads == 0:
        yield from ((item, function(item)) for item in items)
        return
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="ahead")
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    upcoming = iter(items)
    try:
        while True:
            waiting.extend((item, pool.submit(function, item)) for item in islice(upcoming, most - len(waiting)))
            if not waiting:
                return
            item, made = waiting.popleft()
            yield item, made.result()
    finally:
        pool.shutdown(cancel_futures=True)


def in_processes(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    died: Callable[[Item], Result],
    workers: int | None = None,
) -> Generator[tuple[Item, Result], None, None]:
    """Each item with the function's result for it, in the order in which they are done.

    A video library may bring its whole process down on a damaged file. The items that were under way then are tried
    again, each in a process of its own, so that only the one to blame is lost. When the caller stops early, by an
    interrupt say, the workers leave their items by way of their ``finally`` blocks.

    Args:
        function: Of a module, as it is sent to other processes.
        items: Likewise.
        died: The result for an item whose process died over it.
        workers: Processes; None takes one a CPU core, 16 at most. 1 stays in this process, without that safety.
    """
    if workers == 1:
        yield from ((item, function(item)) for item in items)
        return
    waiting = deque(items)
    size = workers or min(os.cpu_count() or 1, MOST_WORKERS)
    worked = False
    while waiting:
        suspects: list[Item] = []
        for done in _with_pool(function, waiting, suspects, size=min(size, len(waiting))):
            worked = True
            yield done
        for item in suspects:
            guilty: list[Item] = []
            yield from _with_pool(function, deque([item]), guilty, size=1)
            worked = worked or not guilty
            if guilty:
                yield item, died(item)
        if not worked:
            raise RuntimeError("worker processes die as soon as they start; run with one worker to see why")


def _with_pool(
    function: Callable[[Item], Result], waiting: deque[Item], suspects: list[Item], *, size: int
) -> Generator[tuple[Item, Result], None, None]:
    """Works ``waiting`` off until nothing is left, or until a process dies over one of ``suspects``."""
    others = set(multiprocessing.active_children())
    # A fresh interpreter for each worker: a fork of a process in which torch has run threads may hang.
    pool = ProcessPoolExecutor(size, mp_context=multiprocessing.get_context("spawn"), initializer=_start)
    under_way: dict[Future[Result], Item] = {}
    try:
        while (waiting and not suspects) or under_way:
            while waiting and not suspects and len(under_way) < 2 * size:
                try:
                    under_way[pool.submit(_work, function, waiting[0])] = waiting[0]
                except BrokenProcessPool:
                    break  # the items under way will tell
                waiting.popleft()
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                item = under_way.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    suspects.append(item)
                else:
                    yield item, result
    except BaseException:
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _start() -> None:
    """In a worker: an interrupt is the first process's business, which then ends the workers; none outlives it."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)


def _end_with_parent() -> None:
    """A killed parent ends nobody, and a worker that waits for its next item would wait for ever."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _stop(*_: Any) -> None:
    if not _at_work:
        os._exit(1)
    raise SystemExit(1)


def _work(function: Callable[[Item], Result], item: Item) -> Result:
    global _at_work
    _at_work = True
    try:
        return function(item)
    except SystemExit:
        os._exit(1)  # its files are cleared away by now; the pool would go on with the next item
    finally:
        _at_work = False
