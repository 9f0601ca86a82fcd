import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taghead import array_folder
from taghead.array_folder import HEAD_BYTES, ArrayFolder, digest

KEY, OTHER = digest("this"), digest("that")
NUMBERS = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def folder(path: Path) -> ArrayFolder:
    return ArrayFolder(path, suffix=".tokens", what="tokens")


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8])
@pytest.mark.parametrize("shape", [(24,), (2, 3, 4), (1, 1, 24), (2, 2, 2, 3)])
def test_an_array_comes_back_as_it_was(tmp_path: Path, dtype: Any, shape: tuple[int, ...]) -> None:
    array = NUMBERS.reshape(shape).astype(dtype)
    assert folder(tmp_path).write("one", KEY, array)
    found = folder(tmp_path).read("one", KEY)
    assert found is not None
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)
    assert (tmp_path / "one.tokens").stat().st_size == HEAD_BYTES + array.nbytes


def test_what_was_made_of_something_else_is_not_there_and_is_replaced(tmp_path: Path) -> None:
    folder(tmp_path).write("one", KEY, NUMBERS)
    assert folder(tmp_path).read("one", OTHER) is None
    assert not folder(tmp_path).holds("one", OTHER)
    folder(tmp_path).write("one", OTHER, NUMBERS + 1)
    assert folder(tmp_path).read("one", KEY) is None
    assert folder(tmp_path).holds("one", OTHER)


def test_no_byte_of_a_file_can_change_and_no_end_be_lost_unseen(tmp_path: Path) -> None:
    folder(tmp_path).write("one", KEY, NUMBERS)
    path = tmp_path / "one.tokens"
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        assert folder(tmp_path).read("one", KEY) is None, f"byte {at}"
        path.write_bytes(whole[:at])
        assert folder(tmp_path).read("one", KEY) is None, f"cut at {at}"
    path.write_bytes(whole + b"0")
    assert folder(tmp_path).read("one", KEY) is None


def test_a_file_that_was_read_and_has_changed_since_is_checked_again(tmp_path: Path) -> None:
    here = folder(tmp_path)
    here.write("one", KEY, NUMBERS)
    path = tmp_path / "one.tokens"
    assert here.read("one", KEY) is not None
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 4]))
    assert here.read("one", KEY) is None


def test_a_full_disk_is_told_once_and_from_then_on_the_folder_is_only_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    here = folder(tmp_path)
    here.write("one", KEY, NUMBERS)
    monkeypatch.setattr(array_folder, "_write", full)
    with pytest.warns(UserWarning, match=r"tokens cannot be kept in .* \(No space left on device\)"):
        assert not here.write("two", KEY, NUMBERS)
    assert not here.write("three", KEY, NUMBERS)
    assert not here.writable
    found = here.read("one", KEY)
    assert found is not None
    assert np.array_equal(found, NUMBERS)
    assert here.holds("one", KEY)


def test_a_folder_that_cannot_be_made_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="tokens cannot be kept in"):
        assert not folder(tmp_path / "file" / "folder").writable


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from taghead.array_folder import ArrayFolder, digest
class Dying(type(Path())):
    def replace(self, target):
        os.kill(os.getpid(), signal.SIGKILL)
folder = ArrayFolder(Path(sys.argv[1]), suffix=".tokens", what="tokens")
folder.folder = Dying(sys.argv[1])
folder.write("one", digest("this"), np.zeros(24, np.float32))
"""


def test_a_writer_that_is_killed_leaves_the_file_before_and_a_part_that_goes_in_time(tmp_path: Path) -> None:
    folder(tmp_path).write("one", KEY, NUMBERS)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    found = folder(tmp_path).read("one", KEY)
    assert found is not None
    assert np.array_equal(found, NUMBERS)
    (part,) = tmp_path.glob("*.part")  # of a process that may still be at it
    os.utime(part, (time.time() - 7200,) * 2)
    folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["one.tokens"]


def test_without_a_folder_nothing_is_kept() -> None:
    nowhere = ArrayFolder(None, suffix=".tokens", what="tokens")
    assert not nowhere.writable
    assert not nowhere.write("one", KEY, NUMBERS)
    assert nowhere.read("one", KEY) is None
    assert not nowhere.holds("one", KEY)
