"""The decoder in processes of their own: what leaks, what crashes, and whether they agree."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from videos import numbered, quarters, write

from taghead.data.decode import sample_frames

MEGABYTE = 2**20
linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads open files and memory from /proc")


def run(script: str, folder: Path, *words: object) -> Any:
    """What a script prints, as JSON; a crash or a signal is a failure."""
    file = folder / "script.py"
    file.write_text(script)
    done = subprocess.run([sys.executable, str(file), *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"exit status {done.returncode}: {done.stderr[-2000:]}"
    return json.loads(done.stdout)


OPENS = """
import json, os, sys
from pathlib import Path
import av
from taghead.data.decode import UnreadableClip, sample_frames

paths, leak, kept = [Path(word) for word in sys.argv[2:]], sys.argv[1] == "leak", []

def opened():
    return len(os.listdir("/proc/self/fd"))

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def sample(count):
    read = 0
    for number in range(count):
        try:
            read += len(sample_frames(paths[number % len(paths)], 2, short_side=16))
        except UnreadableClip:
            if leak:
                kept.append(av.open(str(paths[0])))
    return read

sample(200)  # the library's tables, the allocator's pools
files, memory = opened(), resident()
read = sample(300 if leak else 3000)
print(json.dumps({"read": read, "files": opened() - files, "bytes": resident() - memory}))
"""


@pytest.fixture
def mixed(tmp_path: Path) -> list[Path]:
    """Clips in every state: whole, turned, cut in the index, cut in the pictures, text, empty, absent."""
    whole = write(tmp_path / "a.mp4", [quarters(height=16, width=24)] * 2)
    content = whole.read_bytes()
    turned = write(
        tmp_path / "t.mp4", [quarters(height=16, width=24)] * 2, prepare=lambda s: s.set_display_rotation(90)
    )
    front = write(tmp_path / "f.mp4", [quarters(height=16, width=24)] * 9, container={"movflags": "faststart"})
    front.write_bytes(front.read_bytes()[:-40])
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) * 2 // 3])
    (tmp_path / "fake.mp4").write_text("no video\n" * 50)
    (tmp_path / "empty.mp4").touch()
    return [whole, turned, front, *(tmp_path / name for name in ("cut.mp4", "fake.mp4", "empty.mp4", "gone.mp4"))]


@linux
def test_three_thousand_opens_leave_no_file_open_and_at_most_eight_megabytes(tmp_path, mixed):
    grown = run(OPENS, tmp_path, "sound", *mixed)
    assert grown["read"] > 2000
    assert grown["files"] == 0 and grown["bytes"] < 8 * MEGABYTE


@linux
def test_a_decoder_that_kept_its_containers_would_be_found(tmp_path, mixed):
    grown = run(OPENS, tmp_path, "leak", *mixed)
    assert grown["files"] > 100 and grown["bytes"] > 8 * MEGABYTE


AGREE = """
import hashlib, json, multiprocessing, sys
from concurrent.futures import ThreadPoolExecutor
from taghead.data.decode import sample_frames

def digests(path):
    def one(_):
        return hashlib.sha256(sample_frames(path, 8, short_side=30).tobytes()).hexdigest()
    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(one, range(8)))

if __name__ == "__main__":
    method, path = sys.argv[1:]
    own = digests(path)
    with multiprocessing.get_context(method).Pool(4) as pool:
        theirs = pool.map(digests, [path] * 4, chunksize=1)
    print(json.dumps([len(own), sum(map(len, theirs)), sorted({*own, *sum(theirs, [])})]))
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_four_processes_of_four_threads_give_the_same_bits(tmp_path, method):
    path = write(tmp_path / "a.mp4", numbered(20))
    own = hashlib.sha256(sample_frames(path, 8, short_side=30).tobytes()).hexdigest()
    assert run(AGREE, tmp_path, method, path) == [8, 32, [own]]


HOSTILE = """
import json, random, signal, sys
from pathlib import Path
from taghead.data.decode import UnreadableClip, sample_frames

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

draw, good = random.Random(sys.argv[2]), Path(sys.argv[1])
content, bad = good.read_bytes(), good.with_name("bad" + good.suffix)
sample_frames(good, 5, short_side=16)
before, outcomes = peak(), {}
for _ in range(100):
    damaged = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 8, 64])):
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
    bad.write_bytes(damaged)
    signal.alarm(10)  # its default is to kill
    try:
        count, height, width, channels = sample_frames(bad, 5, short_side=16).shape
        outcome = "right" if (count, min(height, width), channels) == (5, 16, 3) else "another shape"
    except UnreadableClip:
        outcome = "unreadable"
    signal.alarm(0)
    outcomes[outcome] = outcomes.get(outcome, 0) + 1
print(json.dumps(outcomes | {"bytes": peak() - before}))
"""


@linux
@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.webm", "libvpx-vp9"), ("a.avi", "mpeg4")])
def test_a_hundred_damaged_clips_neither_crash_nor_hang_nor_give_another_shape(tmp_path, name, codec):
    pictures = [quarters(height=48, width=64), *numbered(5)]
    outcomes = run(HOSTILE, tmp_path, write(tmp_path / name, pictures, codec=codec), 0)
    assert outcomes.pop("bytes") < 256 * MEGABYTE
    assert set(outcomes) == {"right", "unreadable"} and sum(outcomes.values()) == 100


HUGE = """
import json, sys
from pathlib import Path
from taghead.data import decode, packets

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

small, huge, limit = sys.argv[1:]
decode.sample_frames(small, 2, short_side=16)
packets.MAX_PIXELS = int(limit)
before = peak()
try:
    shape = decode.sample_frames(huge, 2, short_side=16).shape
except decode.UnreadableClip:
    shape = None
print(json.dumps({"shape": shape, "bytes": peak() - before}))
"""


@linux
def test_frames_above_the_limit_are_refused_before_memory_is_spent_on_them(tmp_path):
    small = write(tmp_path / "small.mov", [quarters()], codec="png", pix_fmt="rgb24")
    huge = write(tmp_path / "huge.mov", numbered(1, height=3000, width=3000), codec="png", pix_fmt="rgb24")
    allowed, refused = (run(HUGE, tmp_path, small, huge, limit) for limit in (2**26, 2**20))
    assert allowed["shape"] == [2, 16, 16, 3] and allowed["bytes"] > 24 * MEGABYTE
    assert refused["shape"] is None and refused["bytes"] < 4 * MEGABYTE
