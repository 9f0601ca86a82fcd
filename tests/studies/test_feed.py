import pytest
from fakes import plan, trial

from studies import feed as feeds
from studies.feed import ATTEMPTS, GridFeed, trials_of
from studies.store import Store
from studies.trial import Outcome

DONE, LOST, TAKEN = Outcome("complete"), Outcome("lost"), Outcome("taken")


@pytest.fixture
def store(root):
    return Store(root)


def seeds(feed):
    """The seeds of all that the feed gives now."""
    return [one.seed for one in iter(feed.next, None)]


def test_every_trial_comes_once_in_order_and_then_none(store):
    feed = GridFeed([trial(0), trial(1)], store=store)
    assert seeds(feed) == [0, 1]
    assert not feed.is_finished()
    feed.done(trial(0), DONE)
    feed.done(trial(1), Outcome("failed"))
    assert feed.is_finished()
    assert [outcome.ending for outcome in feed.outcomes.values()] == ["complete", "failed"]


def test_a_lost_trial_comes_again_at_once_and_not_for_ever(store):
    feed = GridFeed([trial(0), trial(1)], store=store)
    for _ in range(ATTEMPTS):
        lost = feed.next()
        assert lost.seed == 0
        feed.done(lost, LOST)
    assert seeds(feed) == [1]
    assert feed.outcomes[trial(0).trial_id].ending == "lost"


@pytest.mark.parametrize("ending", ["lost", "interrupted"])
def test_a_trial_that_ran_out_of_memory_comes_once_more_after_the_others_and_is_then_told(store, ending):
    starved = Outcome(ending, "out of memory: MemoryError")
    feed = GridFeed([trial(0), trial(1)], store=store)
    feed.done(feed.next(), starved)
    assert seeds(feed) == [1, 0]
    feed.done(trial(0), starved)
    assert feed.next() is None
    assert feed.outcomes[trial(0).trial_id] == starved


def test_what_was_interrupted_by_the_disk_or_the_device_waits_for_the_next_launch(store):
    feed = GridFeed([trial(0)], store=store)
    feed.done(feed.next(), Outcome("interrupted", "OSError: Input/output error"))
    assert feed.is_finished()


def test_a_full_disk_lets_nothing_come_again(store):
    feed = GridFeed([trial(0), trial(1)], store=store)
    first, second = feed.next(), feed.next()
    feed.done(first, Outcome("full"))
    feed.done(second, Outcome("interrupted", "out of memory: MemoryError"))
    assert feed.next() is None
    assert feed.is_finished()


def test_a_trial_that_another_driver_runs_is_waited_for(store, monkeypatch):
    monkeypatch.setattr(feeds, "LOOK_AGAIN", 0.0)
    theirs = store.claim(trial(0).trial_id)
    feed = GridFeed([trial(0)], store=store)
    feed.done(feed.next(), TAKEN)
    assert feed.next() is None
    assert not feed.is_finished()
    theirs.release()  # it died, or was stopped
    feed.done(feed.next(), DONE)
    assert feed.is_finished()


def test_waiting_for_another_driver_is_no_attempt(store, monkeypatch):
    monkeypatch.setattr(feeds, "LOOK_AGAIN", 0.0)
    feed = GridFeed([trial(0)], store=store)
    for _ in range(2 * ATTEMPTS):
        feed.done(feed.next(), TAKEN)
    feed.done(feed.next(), LOST)
    assert feed.next() is not None


def test_a_full_disk_ends_the_grid(store):
    feed = GridFeed([trial(0), trial(1), trial(2)], store=store)
    first, second = feed.next(), feed.next()
    feed.done(first, Outcome("full"))
    assert feed.next() is None
    assert not feed.is_finished()
    feed.done(second, LOST)
    assert feed.is_finished()


def test_studies_launched_together_share_trials_and_keep_for_both():
    one, other = plan(keep=("weights",)), plan(name="other", rows={"again": {}}, keep=("embeddings",), seeds=(0, 5))
    trials = {item.trial_id: item for item in trials_of([one, other])}
    assert len(trials) == 5
    shared = trials[one.cell("Full", "haa500").trials[0]]
    assert shared.keep == {"weights", "embeddings"}
    assert shared.label == "mine: Full, haa500, seed 0"
    assert trials[other.cell("again", "haa500").trials[5]].keep == {"embeddings"}


def test_a_row_with_a_linear_head_is_asked_for_no_frame_means():
    asked = plan(keep=("weights", "frame_means"))  # row B is linear
    trials = {item.trial_id: item for item in trials_of([asked])}
    assert trials[asked.cell("B", "haa500").trials[0]].keep == {"weights"}
    assert trials[asked.cell("Full", "haa500").trials[0]].keep == {"weights", "frame_means"}
