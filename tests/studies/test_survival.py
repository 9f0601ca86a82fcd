"""What a study outlives: real processes, real signals, real full and read-only disks. See test_executor.py for more of
Ray's.

The commands below are real but for `taghead.run`, in whose place the stand-in is put.
"""

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import DIES_WRITING, EPOCHS, HANGS, OUT_OF_MEMORY, RAISES, Machine, identify, run, trial, work

from studies.launch import left
from studies.plan import make_plan, read_plan, write_plan
from studies.store import Store
from studies.study import Study
from studies.trial import Work
from taghead.checkpoint import TrainState, load_state, save_state
from taghead.config import Config
from taghead.errors import InputError
from taghead.record import write_record

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])])}
COMMAND = """
import sys, types, fakes
module = types.ModuleType("taghead.run")
module.Machine, module.find_device = fakes.Place, lambda name: "cpu"
module.identify = lambda config, machine: fakes.identify(config)
module.run, module.complete = fakes.run, fakes.complete
sys.modules["taghead.run"] = module
from studies.__main__ import main
main()
"""
ON_RAY = """
import sys
from pathlib import Path
from fakes import Watch, trial, work
from studies.executor import Resources, run_on_ray
from studies.feed import GridFeed
from studies.store import Store

if __name__ == "__main__":
    root, seeds = Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]]
    feed, watch = GridFeed([trial(seed) for seed in seeds], store=Store(root)), Watch()
    run_on_ray(feed, work(root, timeout=4.0), resources=Resources(workers=2), watch=watch)
    for seed in seeds:
        outcome = feed.outcomes[trial(seed).trial_id]
        endings = [what[2] for what in watch.told if what[:2] == ("ended", seed)]
        print("outcome", seed, outcome.ending, "+".join(endings), outcome.message, sep="|", flush=True)
"""
OWN = """
from fakes import DIVERGES, RAISES, study
STUDY = study(seeds=(0, 1, 2))
DIVERGES = study(name="diverges", seeds=(DIVERGES,))
"""


@pytest.fixture
def launch(tmp_path):
    """Starts ``taghead-studies run`` in a folder of its own, in process, at so many seconds an epoch."""
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "data").mkdir()
    begun = []

    def start(*words, study="STUDY", seconds=0.0, place="--in-process", files=None):
        command = [sys.executable, "-c", COMMAND, "run", f"own.py:{study}", place, *words]
        if files is not None:
            command = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *command]
        environment = {**ENVIRONMENT, "SECONDS_AN_EPOCH": str(seconds)}
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe, text=True)
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def end(process):
    said, errors = process.communicate(timeout=300)
    return process.returncode, said, errors


def wait_for(condition, process):
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_whole(root, *seeds):
    """Every trial is there with one row an epoch, and nothing is left over."""
    store = Store(root)
    for path in store.trials.iterdir():
        assert store.read(path.name).status == "complete"
        assert (path / "history.csv").read_text().count("\n") == EPOCHS + 1
        assert {file.name for file in path.iterdir()} <= {
            "history.csv",
            "record.json",
            "claim.1.json",
        }  # the last, of a kill
    assert [path.name for path in store.running.iterdir()] == []
    return len(list(store.trials.iterdir()))


# Killed.


@pytest.mark.parametrize("scene", ["train", "again", "evaluate"])
def test_a_worker_killed_before_any_of_its_file_operations_costs_one_epoch_at_the_most(tmp_path, scene):
    command = [sys.executable, HERE / "crash.py", tmp_path, scene]
    out = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True, timeout=120)
    kills = [json.loads(line) for line in out.stdout.splitlines()]
    assert len(kills) > 10
    assert [kill["killed"] for kill in kills] == [True] * (len(kills) - 1) + [False]
    for kill in kills:
        trained = [] if scene == "evaluate" else list(range(1, kill["of"] + 1))
        assert kill["ending"] == "complete"
        assert sorted(set(kill["epochs"])) == trained
        assert len(kill["epochs"]) <= len(trained) + 1
        assert kill["history"] == kill["of"]
        assert kill["kept"] == kill["asked"]
        assert (kill["left"], kill["hidden"], kill["checkpoint"]) == ([], [], False)


def test_a_command_killed_again_and_again_trains_no_finished_trial_twice_and_ends_whole(launch, root, epochs):
    draw, kills, status = random.Random(0), 0, None
    while status != 0:
        process = launch(seconds=0.05)
        before = len(epochs())
        if kills < 5:
            wait_for(lambda before=before: len(epochs()) > before, process)
            time.sleep(draw.uniform(0, 0.25))
            done = {path.name for path in (root / "trials").iterdir()}
            process.kill()
            kills += 1
            seen = len(epochs())
        status, _, errors = end(process)
        assert status in (0, -signal.SIGKILL), errors
        assert not {name for name, _ in epochs()[seen:]} & done
    assert is_whole(root) == 6
    assert len(epochs()) <= 6 * EPOCHS + kills


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_gives_the_claims_back_and_the_same_command_goes_on(launch, root, epochs, number, status):
    process = launch(seconds=0.1)
    wait_for(lambda: len(epochs()) >= 2, process)
    process.send_signal(number)
    code, said, errors = end(process)
    assert code == status, errors
    assert "the same command goes on." in said
    store = Store(root)
    assert [path.name for path in store.running.glob("*/claim.*")] == ["claim.1.released.json"]
    assert end(launch())[0] == 0
    assert is_whole(root) == 6
    assert len(epochs()) <= 6 * EPOCHS + 1


def test_two_commands_on_one_study_share_its_trials_and_train_none_twice(launch, root, epochs):
    both = [launch(seconds=0.05), launch(seconds=0.05)]
    assert [end(process)[0] for process in both] == [0, 0]
    assert is_whole(root) == 6
    assert len(epochs()) == len(set(epochs())) == 6 * EPOCHS


def test_after_a_machine_was_switched_off_its_trials_go_on_at_once_from_their_checkpoints(root, epochs):
    def stop(row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(root)(trial(), stop)
    claim = Store(root).claim(trial().trial_id).folder / "claim.2.json"
    claim.write_text(json.dumps({**json.loads(claim.read_text()), "boot": "the one before"}))
    assert work(root)(trial(), lambda row: None).ending == "complete"
    assert [epoch for _, epoch in epochs()] == [1, 2, 3, 4]


def test_a_running_trial_holds_one_checkpoint_and_nothing_that_grows(root):
    seen = set()

    def look(row):
        seen.add(tuple(sorted(path.name for path in (root / "running" / trial().trial_id).iterdir())))

    work(root)(trial(), look)
    assert seen == {("checkpoint.pt", "claim.1.json", "history.csv")}


@pytest.fixture(scope="module")
def on_ray(tmp_path_factory):
    """A study on Ray of which one trial hangs, one has no memory, one raises and one dies while it writes."""
    root = tmp_path_factory.mktemp("on_ray") / "results"
    command = [sys.executable, "-c", ON_RAY, root, *map(str, (0, HANGS, OUT_OF_MEMORY, RAISES, DIES_WRITING, 1))]
    out = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert out.returncode == 0, out.stderr
    lines = [line.split("|") for line in out.stdout.splitlines() if line.startswith("outcome")]
    return root, {int(line[1]): line[2:] for line in lines}


def test_on_ray_a_trial_that_hangs_is_failed_by_the_next_worker_and_holds_nobody_up(on_ray):
    root, said = on_ray
    ending, endings, message = said[HANGS]
    assert (ending, endings) == ("failed", "lost+failed")
    assert message.startswith("no end within 4 s (--trial-timeout); it hung at ")
    assert message.endswith(" match")
    assert [said[seed][0] for seed in (0, 1)] == ["complete", "complete"]
    assert Store(root).read(trial(HANGS).trial_id).attempt == 2


def test_on_ray_a_trial_without_memory_is_tried_once_more_told_and_left_to_the_next_launch(on_ray):
    root, said = on_ray
    assert said[OUT_OF_MEMORY] == ["interrupted", "interrupted+interrupted", "out of memory: MemoryError"]
    assert Store(root).need(trial(OUT_OF_MEMORY).trial_id, ()) == "train"
    assert not Store(root).is_running(trial(OUT_OF_MEMORY).trial_id)


def test_on_ray_a_failed_trial_hides_no_other(on_ray):
    _, said = on_ray
    assert said[RAISES] == ["failed", "failed", "RuntimeError: shapes do not match"]
    assert sum(ending == "complete" for ending, *_ in said.values()) == 3


def test_on_ray_what_a_worker_was_writing_when_it_died_is_cleared_away(on_ray):
    root, said = on_ray
    assert said[DIES_WRITING][:2] == ["complete", "lost+complete"]
    assert sorted(path.name for path in (root / "trials" / trial(DIES_WRITING).trial_id).iterdir()) == [
        "history.csv",
        "record.json",
    ]


def test_a_whole_command_on_ray_with_128_open_files_stops_by_a_signal_and_goes_on(launch, root, epochs):
    process = launch("--workers", "2", seconds=0.3, place="--num-cpus=2", files=128)
    wait_for(lambda: len(epochs()) >= 2, process)
    process.send_signal(signal.SIGTERM)
    status, said, errors = end(process)
    assert status == 143, errors
    assert "the same command goes on." in said
    assert not any(Store(root).is_running(path.name) for path in Store(root).running.iterdir())
    assert end(launch())[0] == 0
    assert is_whole(root) == 6
    assert len(epochs()) <= 6 * EPOCHS + 2


# Disks.


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


# Time limits.


def test_a_trial_that_hangs_in_c_ends_its_process_and_is_recorded_as_failed_where_it_hung(root, epochs):
    script = f"from pathlib import Path; from fakes import trial, work; work(Path({str(root)!r}), timeout=1.0)"
    command = [sys.executable, "-c", f"{script}(trial({HANGS}), lambda row: None)"]
    assert subprocess.run(command, env=ENVIRONMENT, timeout=60).returncode == 1
    store, one = Store(root), trial(HANGS)
    assert not store.is_running(one.trial_id)
    outcome = work(root, timeout=1.0)(one, lambda row: None)
    assert outcome.ending == "failed"
    assert outcome.message.startswith("no end within 1 s (--trial-timeout); it hung at ")
    assert outcome.message.endswith(" match")
    frames = (store.trials / one.trial_id / "traceback.txt").read_text()
    assert "fakes.py" in frames
    record = store.read(one.trial_id)
    assert (record.epoch, record.attempt) == (2, 2)
    assert sorted(path.name for path in (store.trials / one.trial_id).iterdir()) == [
        "history.csv",
        "record.json",
        "traceback.txt",
    ]
    store.forget(one.trial_id)
    assert store.need(one.trial_id, ()) == "train"


def test_a_limit_that_is_kept_leaves_no_trace_and_a_killed_trial_is_no_late_one(root):
    script = "import os, signal; from pathlib import Path; from fakes import trial, work\n"
    stop = "lambda row: os.kill(os.getpid(), signal.SIGKILL)"
    command = [sys.executable, "-c", f"{script}work(Path({str(root)!r}), timeout=60.0)(trial(), {stop})"]
    assert subprocess.run(command, env=ENVIRONMENT, timeout=60).returncode == -signal.SIGKILL
    assert (root / "running" / trial().trial_id / "deadline.txt").exists()
    assert work(root, timeout=60.0)(trial(), lambda row: None).ending == "complete"
    assert work(root, timeout=60.0)(trial(1), lambda row: None).ending == "complete"
    assert {path.name for path in (root / "trials").glob("*/*")} == {"history.csv", "record.json"}


# Damage, odd values, growth.


@pytest.mark.parametrize("text", ["", "{", '{"schema_version": 1}', "[]", "\0\0\0"])
def test_a_half_written_record_of_a_trial_that_was_not_finished_is_written_anew(root, text):
    claim = Store(root).claim(trial().trial_id)
    (claim.folder / "record.json").write_text(text)
    claim.release()
    assert work(root)(trial(), lambda row: None).ending == "complete"
    assert is_whole(root) == 1


@pytest.mark.parametrize("text", ["", "{", '{"schema_version": 1}', "[]", "\0\0\0"])
def test_a_half_written_plan_is_told_by_its_path(root, text):
    path = write_plan(make_plan(Study(**ONE), identify=identify), results=root)
    path.write_text(text)
    with pytest.raises(InputError, match=r"plan\.json: not a plan .*; launch the study again"):
        read_plan(root, "odd")


ONE = {"name": "odd", "title": "Odd", "rows": {"Full": {}}, "datasets": {"haa500": Config()}}


def test_a_record_of_numpy_and_torch_numbers_is_one_of_plain_ones(root):
    def by_numpy(*args, **options):
        record = run(*args, **options)
        metrics = {"top1": np.float32(0.5), "mca": torch.tensor(0.25), "loss": np.int64(1)}
        odd = type(record)(**{**dict(record), "metrics": metrics})
        write_record(odd, options["folder"])
        return odd

    values = {"root": root, "machines": {"haa500": Machine()}, "complete": None}
    root.mkdir()
    assert Work(run=by_numpy, **values)(trial(), lambda row: None).ending == "complete"
    assert Store(root).read(trial().trial_id).metrics == {"top1": 0.5, "mca": 0.25, "loss": 1.0}


def test_rows_with_long_labels_and_slashes_name_no_files(root):
    label = " / ".join(f"../a very long value/{number}" for number in range(25))
    study = Study(**{**ONE, "rows": {label: {"head.alpha": 0.2}, "../../Full": {}}})
    plan = make_plan(study, identify=identify)
    write_plan(plan, results=root)
    assert read_plan(root, "odd") == plan
    assert [path.name for path in root.parent.iterdir()] == ["results"]


def test_a_study_that_grows_by_rows_and_seeds_runs_exactly_what_is_new(root, epochs):
    from studies.feed import trials_of

    def grown(rows, seeds):
        base = Config(train={"epochs": EPOCHS})
        other = Config(train={"epochs": EPOCHS}, data={"num_frames": 16})
        labels = {f"alpha {alpha}": {"head.alpha": alpha} for alpha in (0.1, 0.2, 0.3)[:rows]}
        study = Study(**{**ONE, "rows": labels, "datasets": {"haa500": base, "short": other}, "seeds": seeds})
        return trials_of([make_plan(study, identify=identify)])

    store = Store(root)
    first = left(grown(2, (0, 1)), store)
    assert len(first) == 8
    assert {work(root)(one, lambda row: None).ending for one in first} == {"complete"}
    trained = len(epochs())
    new = left(grown(3, (0, 1, 2)), store)
    assert len(new) == 10
    assert {work(root)(one, lambda row: None).ending for one in new} == {"complete"}
    assert not {name for name, _ in epochs()[trained:]} & {one.trial_id for one in first}
    assert left(grown(3, (0, 1, 2)), store) == []


def test_a_study_whose_every_trial_diverges_does_not_exit_with_0(launch):
    status, said, _ = end(launch(study="DIVERGES"))
    assert status == 1
    assert "diverges: 2 trials: 2 diverged" in said
