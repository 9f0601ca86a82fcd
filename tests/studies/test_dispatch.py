"""The dispatcher and the workers' side of it, without Ray: threads and queues stand in for it."""

import socket
import threading
from collections import Counter
from dataclasses import replace
from queue import SimpleQueue

import pytest
from fakes import EPOCHS, RAISES, Machine, Place, Watch, run, trial, work

from studies import dispatch
from studies.delivery import Token
from studies.dispatch import STILLBORN, BrokenWorkerError, Dispatcher, why_lost, work_off
from studies.feed import ATTEMPTS, GridFeed
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
            try:
                work_off(Line(), self.work, token=self.their_token, prunes=self.feed.prunes)
                self.said.put((worker, "went"))
            except BrokenWorkerError:
                self.said.put((worker, "lost", "its worker process died"))  # which is all that Ray tells

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
                here -= {worker} if said == ["lost", "its worker process died"] else set()
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
    for number in range(STILLBORN):
        assert office.dispatcher.hire(f"worker {number}", most=1) == 0.0
        office.dispatcher.hear(f"worker {number}", "lost", "no torch")
    with pytest.raises(InputError, match=rf"{STILLBORN} workers in turn died while they started, .*: no torch"):
        office.dispatcher.hire("one more", most=1)
    assert office.feed.outcomes == {}


def test_workers_that_die_at_their_start_end_nothing_while_another_works(root, capsys):
    office = Office(root, 0, 1, 2)
    hire, hear, give = office.dispatcher.hire, office.dispatcher.hear, office.dispatcher.give
    assert hire("good", most=2) == 0.0
    hear("good", "ready")
    give()
    for number in range(STILLBORN):
        assert hire(f"worker {number}", most=2) == 0.0
        hear(f"worker {number}", "lost", "node7: no torch")
        give()
    assert hire("one more", most=2) is None
    said = capsys.readouterr().err
    assert "the last so: node7: no torch; no more are started: mend what is wrong on that machine, or take" in said
    assert len(said.splitlines()) == 1
    for seed in range(3):
        assert office.answered("good").seed == seed
        hear("good", "ended", office.work(trial(seed), lambda row: None), {})
        give()
    assert office.answered("good") is None
    office.dispatcher.dismissed("good")
    give()
    assert office.endings() == {seed: ["complete"] for seed in range(3)}


def test_where_the_last_worker_goes_too_the_study_ends_and_where_it_dies_others_are_tried_once_more(root):
    office = Office(root, 0, 1)
    hire, hear, give = office.dispatcher.hire, office.dispatcher.hear, office.dispatcher.give
    for name in ("good", *map(str, range(STILLBORN))):
        assert hire(name, most=2) == 0.0
        hear(name, *(["ready"] if name == "good" else ["lost", "no torch"]))
        give()
    hear("good", "lost", "killed")
    for number in range(10, 10 + STILLBORN):
        assert hire(str(number), most=2) == 0.0
        hear(str(number), "lost", "no torch")
        give()
    with pytest.raises(InputError, match=r"no torch; no more are started: .*, and launch again to go on\."):
        hire("one more", most=2)


def test_workers_that_die_after_they_were_let_go_did_not_die_at_their_start(root):
    office = Office(root, *range(STILLBORN))
    hire, hear, give = office.dispatcher.hire, office.dispatcher.hear, office.dispatcher.give
    for number in range(STILLBORN):
        assert hire(str(number), most=None) == 0.0
        hear(str(number), "ready")
    give()
    for number in range(STILLBORN):
        hear(str(number), "ended", office.work(office.answered(str(number)), lambda row: None), {})
    give()
    for number in range(STILLBORN):
        assert office.answered(str(number)) is None
        hear(str(number), "lost", "killed as it went")
    office.feed.add(trial(100))
    give()
    assert hire("another", most=None) == 0.0


class Sticky:
    """A GPU on which one trial's error stays with the process, as CUDA's do; each worker is a thread here."""

    def __init__(self, *poison):
        self.poison, self.process = poison, threading.local()

    def __call__(self, config, *, seed, **options):
        if seed in self.poison or getattr(self.process, "is_broken", False):
            self.process.is_broken = True
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return run(config, seed=seed, **options)


@pytest.mark.parametrize("seen", [True, False])
def test_a_gpu_error_that_stays_with_the_process_costs_no_other_trial(root, monkeypatch, seen):
    monkeypatch.setattr(dispatch, "no_device_here", lambda device: None)
    office = Office(root, 0, 1, 2, 3, seen=seen)
    office.work = replace(office.work, run=Sticky(1), machines={"haa500": Machine(device="cuda")})
    assert len(office.run(most=1)) == 1 + ATTEMPTS
    assert [one for one in office.watch.told if one[1] == 1 and one[0] == "ended"] == [("ended", 1, "lost")] * ATTEMPTS
    assert office.endings() == {0: ["complete"], 1: ["lost"], 2: ["complete"], 3: ["complete"]}
    said = f"{socket.gethostname()}: RuntimeError: CUDA error: an illegal memory access was encountered"
    assert office.feed.outcomes[trial(1).trial_id].message == said
    assert not office.store.is_running(trial(1).trial_id)


def test_what_is_interrupted_by_no_device_ends_no_worker(root):
    office = Office(root, 0, 1)
    office.work = replace(office.work, run=Sticky(0))  # on a CPU
    assert len(office.run(most=1)) == 1
    assert office.endings() == {0: ["interrupted"], 1: ["interrupted"]}


def test_data_that_go_away_while_a_study_runs_take_no_trial_with_them(root, tmp_path):
    office, data = Office(root, 0, 1, 2, 3), tmp_path / "data"
    data.mkdir()

    def unmounts(config, **options):
        record = run(config, **options)
        data.rmdir()
        return record

    office.work = replace(office.work, run=unmounts, machines={"haa500": Place(data_root=data)})
    with pytest.raises(InputError, match=f"{STILLBORN} workers .*: {socket.gethostname()}: no {data}; every machine"):
        office.run(most=1)
    assert {name: one.ending for name, one in office.feed.outcomes.items()} == {trial(0).trial_id: "complete"}


@pytest.mark.parametrize(("timeout", "ending"), [(0.0, "failed"), (3600.0, "complete"), (None, "complete")])
def test_a_worker_elsewhere_that_dies_after_its_time_leaves_a_trial_that_fails(root, timeout, ending):
    office = Office(root, 0, seen=False)
    office.work = replace(office.work, timeout=timeout)
    assert office.dispatcher.hire("dies", most=1) == 0.0
    for said in (["ready"], ["apart", timeout], ["lost", "its worker process died"]):
        office.dispatcher.hear("dies", *said)
        office.dispatcher.give()
    office.work = replace(office.work, timeout=None)
    office.run(most=1)
    assert office.endings() == {0: [ending]}


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


DIED = "Failure # 1\nThe actor died unexpectedly before finishing this task.\n\tpid: 3\n\tip: 10.0.0.7\nIt is dead"
STARVED = (
    "Failure # 1\nTask was killed due to the node running low on memory.\nMemory on the node (IP: 10.0.0.7, ID: ab)"
)


@pytest.mark.parametrize(
    ("error", "here", "on_a_cluster"),
    [
        ("", "its worker process died", "its worker process died"),
        (DIED, "its worker process died", "its worker process died on 10.0.0.7"),
        (STARVED, *2 * ("out of memory: Ray ended its worker process",)),
        ("Traceback\n  ...\nValueError: no\n", "ValueError: no", "ValueError: no"),
    ],
)
def test_a_workers_end_is_told_in_few_words(error, here, on_a_cluster):
    assert why_lost(error, with_address=False) == here
    assert why_lost(error, with_address=True) == on_a_cluster
