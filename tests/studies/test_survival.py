"""What a study outlives: real processes, real signals. See test_survival_disks.py for disks, test_executor.py for Ray.

The commands are real but for `taghead.run`, in whose place the stand-in is put.
"""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import (
    DIES_WRITING,
    ENVIRONMENT,
    EPOCHS,
    HANGS,
    OUT_OF_MEMORY,
    RAISES,
    Machine,
    commands,
    end,
    identify,
    is_whole,
    run,
    trial,
    wait_for,
    work,
)

from studies.launch import left
from studies.plan import make_plan, read_plan, write_plan
from studies.store import Store
from studies.study import Study
from studies.trial import Work
from taghead.config import Config
from taghead.errors import InputError
from taghead.record import write_record

HERE = Path(__file__).parent
ON_RAY = """
import sys
from pathlib import Path
from fakes import Watch, trial, work
from studies.executor import run_on_ray
from studies.feed import GridFeed
from studies.room import Resources
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


@pytest.fixture
def launch(tmp_path):
    with commands(tmp_path) as start:
        yield start


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
