import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType

import pytest

from taghead.data.parallel import in_processes, in_threads


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of that name beside this one, importable here and in processes that are started here."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("jobs")


def test_an_item_that_brings_its_process_down_is_the_only_one_lost(jobs):
    done = dict(in_processes(jobs.square, [0, 1, 2, 3, 4, 6, 7, 8], died=lambda number: -number, workers=2))
    assert done == {0: 0, 1: 1, 2: 4, 3: -3, 4: 16, 6: 36, 7: 49, 8: 64}


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_the_function_reaches_the_caller(jobs, workers):
    with pytest.raises(ValueError, match="five"):
        list(in_processes(jobs.square, [5], died=abs, workers=workers))


def test_one_worker_stays_in_this_process_and_nothing_to_do_starts_none(jobs):
    assert list(in_processes(lambda item: item + 1, [1, 2], died=abs, workers=1)) == [(1, 2), (2, 3)]
    assert list(in_processes(jobs.square, [], died=abs)) == []


def test_processes_that_all_die_are_no_reason_to_go_on(jobs):
    with pytest.raises(RuntimeError, match="die as soon as they start; run with one worker"):
        list(in_processes(jobs.crash, [1, 2], died=abs, workers=2))


SCRIPT = """
import signal
import sys
from pathlib import Path
import jobs
from taghead.data.parallel import in_processes, in_threads
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    folder = Path(sys.argv[1])
    list(in_processes(jobs.linger, [folder / "a", folder / "b", folder / "c"], died=str, workers=2))
"""


@pytest.fixture
def lingering(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process whose two workers hold a file each for as long as they work, and the folder of the files."""
    script, files = tmp_path / "script.py", tmp_path / "files"
    script.write_text(SCRIPT)
    files.mkdir()
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    with subprocess.Popen(
        [sys.executable, script, files], env=os.environ | {"PYTHONPATH": paths}, stderr=subprocess.PIPE, text=True
    ) as process:
        while len(list(files.iterdir())) < 2 and process.poll() is None:
            time.sleep(0.02)
        yield process, files
        process.kill()


def test_a_caller_that_stops_ends_the_workers_by_way_of_their_finally_blocks(lingering):
    process, files = lingering
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert list(files.iterdir()) == [] and process.returncode not in (0, None)
    assert stderr.count("Traceback") == 1 and "KeyboardInterrupt" in stderr


def test_a_caller_that_is_killed_leaves_no_worker_behind(lingering):
    process, files = lingering
    process.kill()
    # the workers hold the pipe of errors open until the last of them ends
    _, stderr = process.communicate(timeout=60)
    assert list(files.iterdir()) == [], stderr


def test_closing_the_results_ends_the_work_too(jobs):
    with closing(in_processes(jobs.square, range(10, 10_000), died=abs, workers=2)) as results:
        assert next(results)[0] >= 10


@pytest.mark.parametrize("num_threads", [0, 1, 3])
def test_threads_give_results_in_the_order_of_the_items(num_threads):
    def slower_at_first(item: int) -> int:
        time.sleep(0.01 if item < 2 else 0)
        return item * item

    done = list(in_threads(slower_at_first, range(7), num_threads=num_threads, most=4))
    assert done == [(item, item * item) for item in range(7)]


@pytest.mark.parametrize(("num_threads", "most", "begun"), [(0, 4, 1), (2, 4, 4)])
def test_threads_are_no_further_ahead_than_they_may(num_threads, most, begun):
    asked: list[int] = []
    results = in_threads(asked.append, range(50), num_threads=num_threads, most=most)
    with closing(results):
        assert asked == []
        next(results)
    assert 1 <= len(asked) <= begun


def test_an_error_in_a_thread_reaches_the_caller_and_no_thread_is_left():
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda item: 1 // item, [1, 0, 1], num_threads=2, most=2))
    assert threading.active_count() == before
