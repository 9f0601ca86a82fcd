import platform
import subprocess
import sys

import pytest

from taghead import memory

GLIBC = platform.libc_ver()[0] == "glibc"
# what a process still holds of a block of 24 MB that it has written to and freed
HELD = """
import resource, sys
import torch
from taghead.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()

def pages():
    return int(open("/proc/self/statm").read().split()[1])

before = pages()
block = torch.ones(6 * 2**20)
del block
print((pages() - before) * resource.getpagesize())
"""


def held(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", HELD, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not GLIBC, reason="another allocator")
def test_what_is_freed_stays_with_the_process_that_asked_for_it() -> None:
    assert held("keep") > 24 * 10**6
    assert held("give back") < 12 * 10**6


def test_without_glibc_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: pytest.fail("the allocator was looked for"))
    assert not memory.keep_freed_memory()
