import os
import shutil

import pytest
from fakes import EPOCHS, Machine, run, trial

from studies import claim as claims
from studies.store import LostClaimError, Store
from taghead.errors import InputError

ID = trial().trial_id


@pytest.fixture
def store(root):
    return Store(root)


def train(store, *, seed=0, keep=()):
    """Claims and runs a trial, up to the move."""
    one = trial(seed)
    claim = store.claim(one.trial_id)
    run(
        one.config,
        seed=seed,
        machine=Machine(),
        folder=claim.folder,
        keep=keep,
        on_epoch=lambda row: None,
        attempt=claim.attempt,
    )
    return claim


def test_an_empty_folder_has_nothing_and_is_not_made(store):
    assert store.read(ID) is None
    assert store.need(ID, ()) == "train"
    assert not store.is_running(ID)
    assert not store.root.exists()


def test_a_trial_is_in_trials_only_once_it_is_whole(store):
    claim = train(store)
    assert store.read(ID) is None
    assert store.is_running(ID)
    claim.finish()
    assert store.read(ID).trial_id == ID
    assert not store.is_running(ID)
    assert not list(store.running.iterdir())


def test_a_finished_trial_holds_no_trace_of_its_claim(store):
    train(store).finish()
    assert sorted(path.name for path in (store.trials / ID).iterdir()) == ["history.csv", "record.json"]


def test_a_claimed_trial_is_not_given_twice(store):
    assert store.claim(ID).attempt == 1
    assert store.claim(ID) is None


def test_a_released_trial_keeps_its_checkpoint_and_counts_the_attempt(store):
    first = store.claim(ID)
    (first.folder / "checkpoint.pt").write_text("2")
    first.release()
    second = store.claim(ID)
    assert second.attempt == 2
    assert (second.folder / "checkpoint.pt").read_text() == "2"


def test_a_worker_whose_claim_was_taken_over_cannot_finish(store):
    slow = train(store)
    claims.release(slow.folder, slow.attempt)  # as if it had been silent for too long
    assert store.claim(ID).attempt == 2
    with pytest.raises(LostClaimError, match=ID):
        slow.finish()
    assert store.read(ID) is None
    slow.release()
    slow.drop()
    assert store.is_running(ID)


def test_what_is_asked_for_and_not_kept_is_evaluated_where_there_are_weights_and_else_trained_again(store):
    train(store, keep=["embeddings"]).finish()
    assert store.need(ID, ["embeddings"]) == "nothing"
    assert store.need(ID, ["embeddings", "frame_means"]) == "again"
    shutil.rmtree(store.trials / ID)
    train(store, keep=["weights"]).finish()
    assert store.need(ID, ["embeddings"]) == "evaluate"
    assert store.kept(ID) == {"weights"}


def test_a_trial_trained_again_takes_the_place_of_the_old_one_in_one_piece(store):
    train(store).finish()
    train(store, keep=["embeddings"]).finish()
    assert store.kept(ID) == {"embeddings"}
    assert not list(store.running.iterdir())


def test_a_complete_trial_stays_where_one_that_diverged_would_take_its_place(store):
    from fakes import DIVERGES

    train(store, keep=["embeddings"]).finish()
    worse = train(store, seed=DIVERGES)
    record = (worse.folder / "record.json").read_text()
    worse.drop()
    again = store.claim(ID)
    (again.folder / "record.json").write_text(record)
    assert not again.finish()
    assert store.ending(ID) == ("complete", "")
    assert store.kept(ID) == {"embeddings"}
    assert not list(store.running.iterdir())


def test_a_killed_process_leaves_nothing_that_the_next_launch_does_not_clear_away(store):
    train(store).finish()
    (store.trials / ID / ".embeddings.npz.123").write_text("half of it")
    for name in (".replaced-x-1", ".forgotten-y-2", ".dropped-z-3"):
        (store.running / name).mkdir()
        (store.running / name / "record.json").write_text("{}")
    (store.running / ".probe-3").write_text("")
    claim = store.claim(ID)
    (claim.folder / ".checkpoint.pt.123").write_text("half of it")
    claim.release()
    store.check_writable()
    store.claim(ID).drop()
    assert not list(store.running.iterdir())
    assert not list((store.trials / ID).glob(".*"))


def test_a_trial_that_diverged_needs_nothing_more(store):
    from fakes import DIVERGES

    train(store, seed=DIVERGES).finish()
    assert store.need(trial(DIVERGES).trial_id, ["embeddings"]) == "nothing"


def test_a_forgotten_trial_is_new(store):
    train(store).finish()
    store.forget(ID)
    assert store.need(ID, ()) == "train"
    assert not list(store.running.iterdir())


def test_a_dropped_claim_leaves_nothing(store):
    store.claim(ID).drop()
    assert not list(store.running.iterdir())


def test_a_damaged_record_is_told_by_its_path_and_not_taken_for_a_missing_one(store):
    train(store).finish()
    path = store.trials / ID / "record.json"
    path.write_text(path.read_text()[: EPOCHS * 10])
    with pytest.raises(InputError, match=r"record\.json: not a result record"):
        store.read(ID)
    assert store.need(ID, ["embeddings"]) == "nothing"
    status, error = store.ending(ID)
    assert status == "failed"
    assert "record.json: not a result record" in error


def test_a_record_of_a_newer_version_is_no_damage(store):
    train(store).finish()
    path = store.trials / ID / "record.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 99'))
    with pytest.raises(InputError, match="upgrade"):
        store.ending(ID)


def test_a_record_under_another_trials_name_is_refused_by_its_folder(store):
    train(store).finish()
    (store.trials / ID).rename(store.trials / "another")
    with pytest.raises(InputError, match=rf"another: holds the record of another trial, {ID}; forget it with `taghead"):
        store.read("another")


def test_a_folder_that_cannot_be_written_to_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file: results cannot be written there \(Not a directory\)"):
        Store(tmp_path / "file").check_writable()


def test_a_claim_is_dropped_though_another_process_puts_its_own_into_the_folder(store, monkeypatch):
    unlink = os.unlink

    def remove(path, *args, **options):
        unlink(path, *args, **options)
        if "claim.1.json" in str(path):
            (store.running / ID).mkdir(exist_ok=True)
            (store.running / ID / ".claim.1.json.7").write_text("another's, at that moment")

    monkeypatch.setattr(os, "unlink", remove)
    store.claim(ID).drop()
    assert [path.name for path in store.running.glob("*/.*")] == [".claim.1.json.7"]  # where it goes on from
