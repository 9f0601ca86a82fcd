import errno
import os
from dataclasses import replace

import pytest
from fakes import BASE, DIVERGES, EPOCHS, FULL, OUT_OF_MEMORY, RAISES, REFUSED, plan, run, trial, work

from studies.feed import trials_of
from studies.store import Store
from studies.trial import PrunedError
from taghead.config import evolve
from taghead.errors import InputError


def ignore(row):
    pass


def test_a_trial_is_trained_once(root, epochs):
    assert work(root)(trial(), ignore).ending == "complete"
    assert work(root)(trial(), ignore).metrics == {"top1": 0.5, "mca": 0.25}
    assert len(epochs()) == EPOCHS


def test_every_epoch_is_told_in_plain_numbers(root):
    rows = []
    work(root)(trial(), rows.append)  # the stand-in reports numpy's
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert {type(value) for row in rows for value in row.values()} == {int, float}


def test_an_interrupted_trial_goes_on_from_its_checkpoint(root, epochs):
    def stop(row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(root)(trial(), stop)
    assert not Store(root).is_running(trial().trial_id)
    assert work(root)(trial(), ignore).ending == "complete"
    assert [epoch for _, epoch in epochs()] == [1, 2, 3, 4]
    assert Store(root).read(trial().trial_id).attempt == 2


def test_a_trial_that_fails_by_its_own_config_is_recorded_with_its_traceback(root):
    outcome = work(root)(trial(RAISES), ignore)
    assert (outcome.ending, outcome.message) == ("failed", "RuntimeError: shapes do not match")
    store, name = Store(root), trial(RAISES).trial_id
    assert store.read(name).status == "failed"
    assert "fakes.py" in (store.trials / name / "traceback.txt").read_text()


def test_a_trial_that_the_feed_stops_is_recorded_as_pruned_with_its_history_and_no_checkpoint(root, epochs):
    def stop(row):
        if row["epoch"] == 2:
            raise PrunedError

    one = replace(trial(keep=["weights"]), pruned_counts=True)
    assert work(root)(one, stop).ending == "pruned"
    store = Store(root)
    record, files = store.read(one.trial_id), sorted(path.name for path in (store.trials / one.trial_id).iterdir())
    assert (record.status, record.epoch, record.metrics, record.error) == ("pruned", 2, {}, None)
    assert files == ["history.csv", "record.json"]
    assert work(root)(one, ignore).ending == "pruned"  # final: not trained further
    assert [epoch for _, epoch in epochs()] == [1, 2]


def test_a_trial_that_a_search_stopped_is_trained_whole_where_a_grid_asks_for_it(root):
    def stop(row):
        raise PrunedError

    work(root)(replace(trial(), pruned_counts=True), stop)
    assert work(root)(trial(), ignore).ending == "complete"
    assert work(root)(replace(trial(), pruned_counts=True), ignore).ending == "complete"


def test_a_trial_that_diverges_is_recorded(root):
    outcome = work(root)(trial(DIVERGES), ignore)
    assert (outcome.ending, outcome.message) == ("diverged", "loss is not finite in epoch 1")


@pytest.mark.parametrize(
    ("seed", "ending", "message"),
    [
        (OUT_OF_MEMORY, "interrupted", "out of memory: MemoryError"),
        (REFUSED, "refused", "labels must be below 3, but got 7; mend the list."),
        (FULL, "full", "somewhere: No space left on device"),
    ],
)
def test_what_the_trial_is_not_to_blame_for_is_not_recorded(root, seed, ending, message):
    outcome = work(root)(trial(seed), ignore)
    assert (outcome.ending, outcome.message) == (ending, message)
    store = Store(root)
    assert store.need(trial(seed).trial_id, ()) == "train"
    assert not store.is_running(trial(seed).trial_id)


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (MemoryError(), True),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"), True),
        (OSError(5, "Input/output error"), False),
        (RuntimeError("No CUDA GPUs are available"), False),
    ],
)
def test_want_of_memory_is_told_from_what_is_not(root, error, is_it):
    def stop(row):
        raise error

    outcome = work(root)(trial(), stop)
    assert (outcome.ending, outcome.out_of_memory) == ("interrupted", is_it)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device"), "the results folder: No space left on device"),
        (type("SafetensorError", (Exception,), {})("I/O error: No space left on device (os error 28)"),
         "the results folder: No space left on device"),
    ],
)  # fmt: skip
def test_no_room_for_what_is_written_is_no_failure_of_the_trial(root, error, message):
    def stop(row):
        raise error

    outcome = work(root)(trial(), stop)
    assert (outcome.ending, outcome.message) == ("full", message)
    assert Store(root).read(trial().trial_id) is None


@pytest.mark.parametrize(("folder", "ending"), [("results", "full"), ("data", "interrupted")])
def test_only_the_results_folder_that_may_not_be_written_ends_a_launch(root, folder, ending):
    def stop(row):
        raise PermissionError(13, "Permission denied", str(root.parent / folder / "file"))

    assert work(root)(trial(), stop).ending == ending


@pytest.mark.parametrize("kind", ["OutOfMemoryError", "AcceleratorError"])
def test_a_device_that_is_out_of_memory_or_gone_is_not_the_trials_fault(root, kind):
    def stop(row):
        raise type(kind, (RuntimeError,), {})("no luck")

    assert work(root)(trial(), stop).ending == "interrupted"


@pytest.mark.parametrize(
    "error",
    [
        AssertionError("Torch not compiled with CUDA enabled"),
        RuntimeError("CUDA error: no kernel image is available for execution on the device"),
        RuntimeError("No CUDA GPUs are available"),
    ],
)
def test_a_device_that_is_not_there_is_not_the_trials_fault(root, error):
    def stop(row):
        raise error

    assert work(root)(trial(), stop).ending == "interrupted"
    assert Store(root).read(trial().trial_id) is None


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (type("AcceleratorError", (RuntimeError,), {})("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasCreate"), True),
        (RuntimeError("No CUDA GPUs are available"), True),
        (OSError(5, "Input/output error"), False),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), False),
        (InputError("CUDA error: of the user's"), False),
    ],
)
def test_an_error_of_the_device_is_told_from_what_is_none(root, error, is_it):
    def stop(row):
        raise error

    assert work(root)(trial(), stop).of_the_device is is_it


def test_what_is_out_of_reach_for_a_moment_is_no_full_disk(root, monkeypatch):
    one, is_dir = work(root), type(root).is_dir

    def fail(path):
        if path == root:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        return is_dir(path)

    def stop(row):
        monkeypatch.setattr(type(root), "is_dir", fail)
        fail(root)

    outcome = one(trial(), stop)
    assert (outcome.ending, "Stale file handle" in outcome.message) == ("interrupted", True)


def test_trouble_of_ray_while_an_epoch_is_told_is_not_the_trials_fault(root):
    def stop(row):
        raise type("RaySystemError", (Exception,), {"__module__": "ray.exceptions"})("the driver is gone")

    assert work(root)(trial(), stop).ending == "interrupted"
    assert Store(root).read(trial().trial_id) is None


def test_a_refusal_before_the_first_checkpoint_leaves_nothing_and_a_later_one_leaves_that(root):
    work(root)(trial(REFUSED), ignore)
    assert not list((root / "running").iterdir())

    def refuse(row):
        raise InputError("no more")

    assert work(root)(trial(), refuse).ending == "refused"
    assert (root / "running" / trial().trial_id / "checkpoint.pt").read_text() == "1"


def test_a_trial_that_another_process_has_is_left_alone(root, epochs):
    Store(root).claim(trial().trial_id)
    assert work(root)(trial(), ignore).ending == "taken"
    assert not epochs()


def test_a_trial_whose_process_died_between_record_and_move_is_finished_without_training(root, epochs):
    work(root)(trial(), ignore)
    store, name = Store(root), trial().trial_id
    (store.trials / name).rename(store.running / name)
    (store.running / name / "checkpoint.pt").write_text("4")
    assert work(root)(trial(), ignore).ending == "complete"
    assert len(epochs()) == EPOCHS
    assert not (store.trials / name / "checkpoint.pt").exists()


def test_what_a_trial_lacks_is_added_by_evaluation_where_its_weights_were_kept(root, epochs):
    work(root)(trial(keep=["weights"]), ignore)
    work(root)(trial(keep=["embeddings"]), ignore)
    assert Store(root).kept(trial().trial_id) == {"weights", "embeddings"}
    assert len(epochs()) == EPOCHS
    assert not list((root / "running").iterdir())


@pytest.mark.parametrize("error", [RuntimeError("no luck"), PrunedError()])
def test_a_complete_trial_is_never_replaced_by_one_that_is_not(root, error):
    def stop(row):
        raise error

    work(root)(trial(keep=["frame_means"]), ignore)
    before = Store(root).read(trial().trial_id)
    outcome = work(root)(trial(keep=["embeddings"]), stop)
    assert outcome.ending == "interrupted"
    assert outcome.message.startswith("run again for what is kept, it ended as ")
    assert Store(root).read(trial().trial_id) == before
    assert not list((root / "running").iterdir())


def test_what_a_trial_lacks_is_trained_again_where_they_were_not_and_loses_nothing(root, epochs):
    work(root)(trial(keep=["frame_means"]), ignore)
    work(root)(trial(keep=["embeddings"]), ignore)
    assert Store(root).kept(trial().trial_id) == {"frame_means", "embeddings"}
    assert len(epochs()) == 2 * EPOCHS


@pytest.mark.parametrize("keep", [["frame_means"], ["weights", "frame_means"]])
def test_a_linear_head_that_is_to_keep_frame_means_is_trained_once_and_lacks_nothing(root, epochs, keep):
    def keeps_what_there_is(config, *, keep, **options):
        return run(config, keep=[name for name in keep if name != "frame_means"], **options)

    one = trial(config=evolve(BASE, {"model.head": "linear"}), keep=keep)
    for _ in range(2):
        assert replace(work(root), run=keeps_what_there_is)(one, ignore).ending == "complete"
        assert Store(root).need(one.trial_id, one.keep) == "nothing"
    assert len(epochs()) == EPOCHS


def test_clips_that_changed_since_the_plan_are_refused(root):
    planned = trials_of([plan()])[0]
    changed = replace(planned, config=evolve(planned.config, {"train.lr": 0.5}))
    for _ in range(2):  # the second launch must not take for done what the first refused
        outcome = work(root)(changed, ignore)
        assert outcome.ending == "refused"
        assert "launch it again" in outcome.message
        assert Store(root).read(planned.trial_id) is None


def test_what_another_experiment_left_under_a_trials_name_is_removed_and_the_trial_trained(root, epochs):
    work(root)(trial(1, keep=["embeddings"]), ignore)
    store, name = Store(root), trial(0).trial_id
    (store.trials / trial(1).trial_id).rename(store.running / name)
    assert work(root)(trial(0), ignore).metrics["top1"] == 0.5
    assert store.read(name).seed == 0
    assert store.kept(name) == frozenset()
    assert len(epochs()) == 2 * EPOCHS


def test_the_run_function_is_told_which_trial_is_expected(root):
    told = []

    def remember(*args, expect, **options):
        told.append(expect)
        return run(*args, **options)

    replace(work(root), run=remember)(trial(), ignore)
    assert told == [trial().trial_id]
