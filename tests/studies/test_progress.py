import io

import pytest
from fakes import trial
from rich.console import Console

from studies import progress as module
from studies.progress import Progress
from studies.trial import Outcome

FIRST, SECOND = trial(0, label="mine: B, haa500, seed 0"), trial(1, label="mine: B, haa500, seed 1")


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def watch(*, terminal=False, there=0):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, soft_wrap=True, highlight=False)
    return Progress([FIRST, SECOND], there=there, console=console), console.file


def row(epoch):
    return {"epoch": epoch, "epochs": 4, "loss": 1.25}


def test_a_log_has_a_line_for_each_trial_that_ends_with_its_scores(clock):
    progress, log = watch()
    with progress:
        progress.began(FIRST)
        progress.ended(FIRST, Outcome("complete", metrics={"top1": 0.832, "mca": 0.801, "loss": 0.5}))
        progress.ended(SECOND, Outcome("failed", "RuntimeError: shapes"))
    lines = log.getvalue().splitlines()
    assert lines[0].endswith("complete  mine: B, haa500, seed 0  top1 83.2%, mca 80.1%")
    assert lines[1].endswith("failed    mine: B, haa500, seed 1  RuntimeError: shapes")
    assert len(lines) == 2


def test_a_log_tells_of_the_whole_no_oftener_than_every_ten_seconds(clock):
    progress, log = watch(there=3)
    progress.began(FIRST)
    progress.began(SECOND)
    for epoch, now in [(1, 101.0), (2, 102.0), (3, 112.0)]:
        clock[0] = now
        progress.epoch(FIRST, row(epoch))
    lines = log.getvalue().splitlines()
    assert [line[9:] for line in lines] == [
        "3 of 5 trials done, 2 running, about 0:00:07 left; mine: B, haa500, seed 0: epoch 1/4, loss 1.250",
        "3 of 5 trials done, 2 running, about 0:00:20 left; mine: B, haa500, seed 0: epoch 3/4, loss 1.250",
    ]


def test_the_time_left_counts_the_epochs_that_are_left_at_the_rate_so_far(clock):
    progress, log = watch()
    progress.began(FIRST)
    clock[0] += 30.0
    progress.epoch(FIRST, row(1))
    assert "about 0:03:30 left" in log.getvalue()  # 3 + 4 epochs of 30 seconds


def test_a_trial_that_was_lost_is_not_done_and_runs_again(clock):
    progress, log = watch()
    progress.began(FIRST)
    progress.ended(FIRST, Outcome("lost", "its worker process died"))
    progress.began(FIRST)
    clock[0] += 11
    progress.epoch(FIRST, row(1))
    assert "lost      mine: B, haa500, seed 0  its worker process died" in log.getvalue()
    assert "0 of 2 trials done, 1 running" in log.getvalue()


def test_one_refusal_of_many_trials_is_told_once(clock):
    progress, log = watch()
    for one in (FIRST, SECOND):
        progress.ended(one, Outcome("refused", "no such weights"))
    first, second = log.getvalue().splitlines()
    assert first.endswith("seed 0  no such weights")
    assert second.endswith("seed 1  for the same reason")


def test_a_terminal_shows_what_runs_and_leaves_only_what_ended(clock):
    progress, screen = watch(terminal=True)
    with progress:
        progress.began(FIRST)
        progress.epoch(FIRST, row(2))
        progress._live.refresh()
        progress.ended(SECOND, Outcome("complete", metrics={"top1": 0.5}))
    assert "epoch 2/4, loss 1.250" in screen.getvalue()
    assert "2 running" not in screen.getvalue()
    assert "0 of 2 trials done, 1 running" in screen.getvalue()


def test_square_brackets_in_an_error_are_printed_as_they_are(clock):
    progress, log = watch()
    progress.ended(FIRST, Outcome("failed", "size mismatch [3, 4] vs [bold]"))
    assert "size mismatch [3, 4] vs [bold]" in log.getvalue()
