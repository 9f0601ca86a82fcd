"""The dispatcher and the workers' side of it, without Ray: threads and queues stand in for it."""

import threading
from collections import Counter
from queue import SimpleQueue

import pytest
from fakes import EPOCHS, RAISES, Watch, trial, work

from studies import dispatch
from studies.delivery import Token
from studies.dispatch import STILLBORN, Dispatcher, work_off
from studies.feed import GridFeed
from studies.store import Store
from taghead.errors import InputError


class PruningFeed(GridFeed):
    prunes = True

    def epoch(self, trial, row):
        return trial.seed % 2 == 0 or row["epoch"] < 2


class Office:
    """A dispatcher and what it is given; workers are threads, or names that say nothing by themselves."""

    def __init__(self, root, *seeds, feed_class=GridFeed, share=lambda trial: 0.0, seen=True):
        self.work, self.store, self.watch = work(root), Store(root), Watch()
        self.feed = feed_class([trial(seed) for seed in seeds], store=self.store)
        self.token = Token.leave(self.store)
        self.answers, self.said = {}, SimpleQueue()
        self.dispatcher = Dispatcher(
            self.feed, store=self.store, token=self.token, watch=self.watch, share=share, answer=self.answer
        )
        self.their_token = self.token if seen else Token(root / "elsewhere", "")

    def answer(self, worker, answer):
        self.answers.setdefault(worker, SimpleQueue()).put(answer)

    def answered(self, worker):
        return self.answers.setdefault(worker, SimpleQueue()).get(timeout=20)

    def start(self, worker):
        office = self

        class Line:
            def say(self, *said):
                office.said.put((worker, *said))

            def ask(self, *said):
                self.say(*said)
                return office.answered(worker)

        def serve():
            work_off(Line(), self.work, token=self.their_token, prunes=self.feed.prunes)
            self.said.put((worker, "went"))

        threading.Thread(target=serve, daemon=True).start()

    def run(self, most):
        """Hires and hears until all is done; gives the share that each worker had."""
        hired, here = {}, set()
        while not self.dispatcher.is_finished() or here:
            name = f"worker {len(hired)}"
            share = self.dispatcher.hire(name, most=most)
            if share is not None:
                hired[name] = share
                here.add(name)
                self.start(name)
                continue
            worker, *said = self.said.get(timeout=20)
            if said == ["went"]:
                here.remove(worker)
                self.dispatcher.dismissed(worker)
            else:
                self.dispatcher.hear(worker, *said)
            self.dispatcher.give()
        return hired

    def endings(self):
        return {seed: ending for what, seed, *ending in self.watch.told if what == "ended"}


def test_every_trial_is_done_once_by_no_more_workers_than_there_may_be(root, epochs):
    office = Office(root, *range(5), RAISES)
    assert len(office.run(most=2)) == 2
    assert office.endings() == {**{seed: ["complete"] for seed in range(5)}, RAISES: ["failed"]}
    assert sorted(epochs()) == sorted((trial(seed).trial_id, n) for seed in range(5) for n in range(1, EPOCHS + 1))


def test_no_more_workers_are_hired_than_there_are_trials(root):
    assert len(Office(root, 0, 1).run(most=8)) == 2


def test_a_trial_that_the_feed_stops_is_recorded_as_pruned(root):
    office = Office(root, 0, 1, feed_class=PruningFeed)
    office.run(most=1)
    assert office.endings() == {0: ["complete"], 1: ["pruned"]}
    assert ("epoch", 1, 3) not in office.watch.told


def test_a_worker_that_does_not_see_the_folder_delivers_whole_trials(root):
    office = Office(root, 0, 1, seen=False)
    office.run(most=2)
    assert office.endings() == {0: ["complete"], 1: ["complete"]}
    assert [office.store.read(trial(seed).trial_id).status for seed in (0, 1)] == ["complete"] * 2
    assert not [path for path in office.store.running.iterdir() if not path.name.startswith(".")]


def test_trials_go_to_workers_that_have_just_their_share_of_a_gpu(root):
    shares = {0: 0.5, 1: 0.25, 2: 0.5, 3: 0.25, 4: 1.0}
    office = Office(root, *shares, share=lambda trial: shares[trial.seed])
    assert Counter(office.run(most=None).values()) == {0.5: 2, 0.25: 2, 1.0: 1}
    assert len(office.endings()) == 5
    again = Office(root / "again", *shares, share=lambda trial: shares[trial.seed])
    assert list(again.run(most=1).values()) == [0.5, 0.25, 1.0]
    assert list(again.endings()) == [0, 2, 1, 3, 4]


def test_the_trial_of_a_lost_worker_comes_again_and_what_the_dead_said_late_counts_no_more(root):
    office = Office(root, 0)
    hire, hear, give = office.dispatcher.hire, office.dispatcher.hear, office.dispatcher.give
    assert hire("first", most=1) == 0.0
    hear("first", "ready")
    give()
    assert office.answered("first").seed == 0
    hear("first", "lost", "its worker process died")
    hear("first", "epoch", {"epoch": 1}, None)
    assert office.watch.told == [("began", 0), ("ended", 0, "lost")]
    assert hire("second", most=1) == 0.0
    hear("second", "ready")
    give()
    assert office.answered("second").seed == 0


def test_a_worker_waits_while_another_may_still_die_of_the_last_trial(root):
    office = Office(root, 0)
    hear, give = office.dispatcher.hear, office.dispatcher.give
    assert office.dispatcher.hire("first", most=2) == 0.0
    hear("first", "ready")
    give()
    assert office.dispatcher.hire("second", most=2) is None
    office.feed.add(trial(1))
    assert office.dispatcher.hire("second", most=2) == 0.0
    hear("second", "ready")
    give()
    hear("second", "ended", office.work(trial(1), lambda row: None), {})
    give()
    assert office.answers["second"].qsize() == 1  # its own trial, and no word that it may go
    hear("first", "lost", "killed")
    give()
    assert [office.answered("second").seed for _ in range(2)] == [1, 0]


def test_workers_that_die_at_their_start_end_the_study(root):
    office = Office(root, 0)
    with pytest.raises(InputError, match=rf"{STILLBORN} workers in turn died while they started, .*: no torch"):
        for number in range(STILLBORN):
            assert office.dispatcher.hire(f"worker {number}", most=1) == 0.0
            office.dispatcher.hear(f"worker {number}", "lost", "no torch")
    assert office.feed.outcomes == {}


def test_the_feed_is_asked_for_no_more_than_there_are_workers_for(root, monkeypatch):
    asked = []
    monkeypatch.setattr(dispatch, "LOOK_AHEAD", 4)
    office = Office(root, *range(50), share=lambda trial: asked.append(trial.seed) or trial.seed / 100)
    assert office.dispatcher.hire("one", most=3) == 0.0
    office.dispatcher.hear("one", "ready")
    office.dispatcher.give()
    assert set(asked) == {0}
    assert [office.dispatcher.hire(name, most=3) for name in ("two", "three", "four")] == [0.01, 0.02, None]
    assert max(asked) == 2
