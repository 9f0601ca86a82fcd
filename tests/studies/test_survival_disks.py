"""What a study outlives of disks: full ones, read-only ones, results that are moved; by real mounts where allowed."""

import errno
import os
import resource
import subprocess
from pathlib import Path

import pytest
import torch
from fakes import EPOCHS, commands, end, is_whole, trial, wait_for, work

from studies.store import Store
from taghead.checkpoint import TrainState, load_state, save_state


@pytest.fixture
def launch(tmp_path):
    with commands(tmp_path) as start:
        yield start


@pytest.fixture
def disk(tmp_path):
    """Makes a disk of so many kB; skips where that is not allowed."""
    place = tmp_path / "disk"
    place.mkdir()
    made = []

    def make(size):
        words = f"remount,size={size}k" if made else f"size={size}k"
        if subprocess.run(["mount", "-t", "tmpfs", "-o", words, "none", place], capture_output=True).returncode:
            pytest.skip("a disk cannot be mounted here")
        made.append(size)
        return place

    yield make
    if made:
        subprocess.run(["umount", place], check=True)


def test_however_full_the_disk_is_nothing_is_recorded_that_is_not_whole_and_room_mends_it(disk):
    endings = []
    for size in range(4, 80, 4):
        folder = disk(size) / str(size)
        one, store = trial(keep=["embeddings"]), Store(folder)
        ending = work(folder)(one, lambda row: None).ending
        endings.append(ending)
        assert (store.read(one.trial_id) is None) == (ending == "full")
        disk(1024)
        assert work(folder)(one, lambda row: None).ending == "complete"
        assert (store.trials / one.trial_id / "history.csv").read_text().count("\n") == EPOCHS + 1
        assert not list(store.running.iterdir())
        subprocess.run(["rm", "-r", folder], check=True)
        (folder.parent / "epochs.log").unlink()
    assert endings == ["full"] * endings.count("full") + ["complete"] * endings.count("complete")
    assert len(set(endings)) == 2


def test_a_disk_too_full_for_a_checkpoint_leaves_the_one_before_and_says_so(disk):
    path = disk(64) / "checkpoint.pt"
    save_state(TrainState(trial="old", threads=1), path)
    with pytest.raises(OSError, match="No space left on device"):
        save_state(TrainState(trial="new", threads=1, model={"weight": torch.zeros(100_000)}), path)
    assert load_state(path).trial == "old"
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint.pt"]


def test_a_checkpoint_that_may_not_grow_is_told_as_what_it_is_without_a_disk_of_its_own(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_state(TrainState(trial="old", threads=1), path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            save_state(TrainState(trial="new", threads=1, model={"weight": torch.zeros(100_000)}), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.errno == errno.EFBIG
    assert load_state(path).trial == "old"


@pytest.mark.parametrize("file", ["checkpoint.pt", "history.csv", "record.json", "claim.1.json"])
def test_a_full_disk_at_any_file_ends_the_launch_and_costs_nothing(root, epochs, monkeypatch, file):
    real, fail = Path.write_text, [True]

    def write(path, *args, **options):
        if fail[0] and path.name.startswith(f".{file}."):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return real(path, *args, **options)

    monkeypatch.setattr(Path, "write_text", write)
    outcome = work(root)(trial(), lambda row: None)
    assert outcome.ending == "full"
    assert "No space left on device" in outcome.message
    fail[0] = False
    assert not Store(root).is_running(trial().trial_id)
    assert work(root)(trial(), lambda row: None).ending == "complete"
    assert is_whole(root) == 1
    assert len(epochs()) <= EPOCHS + 1


@pytest.fixture
def read_only(tmp_path):
    """Makes a folder read-only, and writable again; root too may then not write to it."""
    held = []

    def make(folder):
        if subprocess.run(["mount", "--bind", folder, folder], capture_output=True).returncode:
            pytest.skip("nothing can be mounted here")
        held.append(folder)
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)

    def undo():
        while held:
            subprocess.run(["umount", "-l", held.pop()], check=True)

    make.undo = undo
    yield make
    undo()


def test_results_that_cannot_be_written_are_refused_before_the_work_and_read_all_the_same(launch, root, read_only):
    assert end(launch("--seeds", "1"))[0] == 0
    read_only(root)
    status, _, errors = end(launch())
    assert status == 2
    assert errors.startswith("error: ")
    assert "results: results cannot be written there (Read-only file system); give another folder" in errors
    assert len(errors.splitlines()) == 1
    assert is_whole(root) == 2


def test_results_that_become_read_only_end_the_launch_and_it_goes_on_when_they_are_writable(
    launch, root, epochs, read_only
):
    process = launch(seconds=0.1)
    wait_for(lambda: len(epochs()) >= EPOCHS + 1, process)
    read_only(root)
    status, _, errors = end(process)
    assert status == 2
    assert "Read-only file system" in errors
    read_only.undo()
    assert end(launch())[0] == 0
    assert is_whole(root) == 6
    assert len(epochs()) <= 6 * EPOCHS + 1


def test_results_moved_between_two_launches_go_on_where_they_are(launch, root, epochs):
    process = launch(seconds=0.1)
    wait_for(lambda: len(epochs()) >= EPOCHS + 1, process)
    process.kill()
    end(process)
    elsewhere = root.rename(root.with_name("elsewhere"))
    assert end(launch("--results", "elsewhere"))[0] == 0
    assert is_whole(elsewhere) == 6
    assert len(epochs()) <= 6 * EPOCHS + 1
    assert not root.exists()


def test_results_moved_while_a_study_runs_end_the_launch_and_no_second_folder_is_begun(launch, root, epochs):
    process = launch(seconds=0.1)
    wait_for(lambda: len(epochs()) >= EPOCHS + 1, process)
    elsewhere = root.rename(root.with_name("elsewhere"))
    status, _, errors = end(process)
    assert status == 2
    assert f"{root}: the results folder was moved or removed while the study ran; launch it again with" in errors
    assert not root.exists()
    assert end(launch("--results", "elsewhere"))[0] == 0
    assert is_whole(elsewhere) == 6
    assert len(epochs()) <= 6 * EPOCHS + 2
