import errno
import json
import os
import socket
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes import EPOCHS, FULL, RAISES, trial, work

from studies.claim import this_worker
from studies.delivery import Delivery, Token, missing_here, no_device_here, run_apart
from studies.store import Store
from studies.trial import Outcome

ELSEWHERE = Path("/nowhere/results")  # of the driver, as a worker on another machine sees it


@pytest.fixture
def store(root):
    store = Store(root)
    store.check_writable()
    return store


def deliver(store, one, on_epoch=lambda row, history: None):
    """The whole way: claimed by the driver, run by a worker that does not see the store, delivered."""
    delivery, files = Delivery.begin(store, one)
    outcome, files = run_apart(replace(work(store.root), root=ELSEWHERE), one, files, on_epoch)
    return delivery.end(outcome, files)


def held(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_delivered_trial_is_the_one_that_a_worker_beside_the_store_writes(store, tmp_path):
    one = trial(keep=("embeddings",))
    outcome = deliver(store, one)
    there = Store(tmp_path / "there" / "results")
    assert work(there.root)(one, lambda row: None) == outcome
    assert held(store.trials / one.trial_id) == held(there.trials / one.trial_id)
    assert not list(store.running.iterdir())


def test_a_failed_trial_is_delivered_with_its_traceback(store):
    assert deliver(store, trial(RAISES)).ending == "failed"
    assert "RuntimeError" in (store.trials / trial(RAISES).trial_id / "traceback.txt").read_text()


def test_a_worker_elsewhere_goes_on_from_the_checkpoint_that_the_store_has(store):
    name = trial().trial_id
    claim = store.claim(name)
    (claim.folder / "checkpoint.pt").write_text("3")
    claim.release()
    rows = []
    assert deliver(store, trial(), lambda row, history: rows.append(row["epoch"])).ending == "complete"
    assert rows == [EPOCHS]
    assert store.read(name).attempt == 2


def test_a_finished_trial_that_lacks_files_is_completed_elsewhere_from_its_weights(store, epochs):
    work(store.root)(trial(keep=("weights",)), lambda row: None)
    before = store.read(trial().trial_id)
    assert deliver(store, trial(keep=("weights", "embeddings")), pytest.fail).ending == "complete"
    assert store.kept(trial().trial_id) == {"weights", "embeddings"}
    assert store.read(trial().trial_id) == before


def test_the_history_is_where_status_reads_it_while_the_trial_runs(store):
    delivery, files = Delivery.begin(store, trial())
    seen = []

    def look(row, history):
        delivery.epoch(history)
        seen.append(len((store.running / trial().trial_id / "history.csv").read_text().splitlines()) - 1)
        assert store.is_running(trial().trial_id) and store.claim(trial().trial_id) is None

    run_apart(work(store.root), trial(), files, look)
    assert seen == list(range(1, EPOCHS + 1))


@pytest.mark.parametrize("lacking", ["trials/record.json", "all"])
def test_half_a_delivery_is_no_trial_and_leaves_it_to_the_next(store, lacking):
    delivery, files = Delivery.begin(store, trial())
    outcome, files = run_apart(work(store.root), trial(), files, lambda row, history: None)
    files = {name: content for name, content in files.items() if lacking not in (name, "all")}
    assert delivery.end(outcome, files).ending == "lost"
    assert not list(store.trials.iterdir())
    assert deliver(store, trial()).ending == "complete"
    assert store.read(trial().trial_id).attempt == 2


def test_what_a_lost_worker_was_sent_stays_for_the_next(store):
    claim = store.claim(trial().trial_id)
    (claim.folder / "checkpoint.pt").write_text("2")
    claim.release()
    delivery, _ = Delivery.begin(store, trial())
    delivery.epoch(b"epoch,loss\n")
    assert delivery.end(Outcome("lost", "its worker process died"), {}).ending == "lost"
    assert not store.is_running(trial().trial_id)
    assert (store.running / trial().trial_id / "checkpoint.pt").read_text() == "2"


def test_what_another_runs_or_has_just_done_is_not_begun(store):
    claim = store.claim(trial().trial_id)
    assert Delivery.begin(store, trial()) == Outcome("taken")
    claim.release()
    told = work(store.root)(trial(), lambda row: None)
    assert Delivery.begin(store, trial()) == told
    assert not list(store.running.iterdir())


def test_a_full_disk_of_the_worker_does_not_end_the_study(store):
    outcome = deliver(store, trial(FULL))
    assert outcome.ending == "interrupted"
    assert outcome.message.startswith(f"{socket.gethostname()}: somewhere: No space left")


@pytest.fixture
def unreachable(monkeypatch):
    """Makes a function of `Path` fail for a folder and its files, with an errno."""

    def make(function, folder, number):
        real = getattr(Path, function)

        def fail(path, *args, **options):
            if folder in (path, path.parent):
                raise OSError(number, os.strerror(number), str(path))
            return real(path, *args, **options)

        monkeypatch.setattr(Path, function, fail)

    return make


@pytest.mark.parametrize(
    ("number", "ending"), [(errno.ESTALE, "interrupted"), (errno.EIO, "interrupted"), (errno.ENOSPC, "full")]
)
def test_only_a_disk_that_takes_nothing_more_ends_the_study_and_no_passing_trouble(store, unreachable, number, ending):
    unreachable("write_bytes", store.running / trial(1).trial_id, number)
    outcome = deliver(store, trial(1))
    assert (outcome.ending, os.strerror(number) in outcome.message) == (ending, True)
    unreachable("mkdir", store.running / trial(2).trial_id, number)
    outcome = Delivery.begin(store, trial(2))
    assert (outcome.ending, os.strerror(number) in outcome.message) == (ending, True)
    assert not any(store.is_running(trial(seed).trial_id) for seed in (1, 2))


LOST = Outcome("lost", "its worker process died")


@pytest.mark.parametrize("seen", [True, False])
def test_a_trial_that_took_all_its_time_elsewhere_is_recorded_as_failed_by_the_next_worker(store, seen):
    delivery, _ = Delivery.begin(store, trial(), timeout=0.0)
    delivery.epoch(b"epoch,loss\n1,1.0\n")
    assert delivery.lost(LOST) == LOST
    told = work(store.root)(trial(), pytest.fail) if seen else deliver(store, trial(), pytest.fail)
    assert (told.ending, told.message) == ("failed", "no end within 0 s (--trial-timeout)")
    record = store.read(trial().trial_id)
    assert (record.status, record.epoch, record.attempt) == ("failed", 1, 2)
    assert {path.name for path in (store.trials / trial().trial_id).iterdir()} == {
        "history.csv",
        "record.json",
        "traceback.txt",
    }


@pytest.mark.parametrize(
    ("timeout", "outcome"), [(3600.0, LOST), (None, LOST), (0.0, Outcome("lost", "out of memory: Ray ended it"))]
)
def test_a_trial_that_was_lost_within_its_time_or_for_want_of_memory_is_tried_again(store, timeout, outcome):
    delivery, _ = Delivery.begin(store, trial(), timeout=timeout)
    assert delivery.lost(outcome) == outcome
    assert deliver(store, trial()).ending == "complete"


def test_a_token_is_seen_in_its_own_folder_only(store, tmp_path):
    token = Token.leave(store)
    assert token.is_here()
    elsewhere = replace(token, path=tmp_path / "elsewhere" / token.path.name)
    assert not elsewhere.is_here()
    elsewhere.path.parent.mkdir()
    elsewhere.path.write_text("another")
    assert not elsewhere.is_here()
    token.remove()
    assert not token.is_here()


def test_tokens_of_killed_drivers_are_removed_and_those_of_live_ones_stay(store):
    live, dead = Token.leave(store), store.running / ".shared-dead"
    dead.write_text(json.dumps({**asdict(this_worker()), "start": "1"}))
    other = Token.leave(store)
    assert (live.is_here(), other.is_here(), dead.exists()) == (True, True, False)


def test_a_machine_without_the_data_or_the_weights_is_named_with_what_it_lacks(tmp_path):
    assert missing_here(SimpleNamespace(data_root=tmp_path, weights=None)) is None
    for name, option in (("data_root", "--data-root"), ("weights", "--weights")):
        machine = SimpleNamespace(**{"data_root": tmp_path, "weights": tmp_path, name: tmp_path / "gone"})
        assert missing_here(machine).startswith(f"{socket.gethostname()}: no {tmp_path / 'gone'}; every machine")
        assert option in missing_here(machine)


def test_a_machine_without_the_device_refuses_and_takes_no_other(monkeypatch):
    assert no_device_here("cpu") is None
    monkeypatch.setattr("torch.empty", lambda *_, device: (_ for _ in ()).throw(RuntimeError(f"no {device}")))
    assert no_device_here("cuda") == (
        f"{socket.gethostname()}: --device cuda: not to be had here (no cuda); use cpu, or auto."
    )
