import subprocess
import sys
from pathlib import Path

import pytest
from fakes import Watch, trial

from studies.track import Tracked, TrackingWatch, check_tracker
from studies.trial import Outcome
from taghead.errors import InputError

LABEL = "mine: Full, haa500, seed 3"


class Callback:
    def __init__(self):
        self.told = []

    def setup(self):
        self.told.append(("setup",))

    def log_trial_start(self, trial):
        self.told.append(("start", str(trial), trial.config))

    def log_trial_result(self, iteration, trial, result):
        self.told.append(("result", str(trial), result))

    def log_trial_end(self, trial, failed=False):
        self.told.append(("end", str(trial), failed))

    def on_experiment_end(self, trials):
        self.told.append(("close",))


def follow(callback, folder, *outcomes):
    """Two epochs and an end for each outcome; the last is left open where it is None."""
    watch = TrackingWatch(Watch(), callback, folder=folder)
    for outcome in outcomes:
        watch.began(trial(3, label=LABEL))
        for epoch in (1, 2):
            watch.epoch(trial(3, label=LABEL), {"epoch": epoch, "epochs": 2, "loss": 1 / epoch})
        if outcome:
            watch.ended(trial(3, label=LABEL), outcome)
    watch.close()
    return watch


def test_a_tracker_is_told_of_epochs_and_scores_under_the_label(tmp_path):
    callback = Callback()
    follow(callback, tmp_path, Outcome("complete", metrics={"top1": 0.5}))
    assert [told[0] for told in callback.told] == ["setup", "start", "result", "result", "result", "end", "close"]
    assert {told[1] for told in callback.told[1:-1]} == {LABEL}
    assert [told[2] for told in callback.told[2:5]] == [
        {"training_iteration": 1, "loss": 1.0},
        {"training_iteration": 2, "loss": 0.5},
        {"training_iteration": 2, "test_top1": 0.5},
    ]


def test_a_tracker_is_told_of_the_config_as_dotted_names_and_plain_values(tmp_path):
    callback = Callback()
    follow(callback, tmp_path, Outcome("complete"))
    config = callback.told[1][2]
    assert (config["model.head"], config["train.epochs"], config["seed"]) == ("tag", 4, 3)
    assert {type(value) for value in config.values()} <= {str, bool, int, float, type(None)}


def test_lost_failed_and_open_runs_end_as_failed(tmp_path):
    callback = Callback()
    follow(callback, tmp_path, Outcome("lost"), Outcome("failed"), Outcome("pruned"), None)
    assert [told[2] for told in callback.told if told[0] == "end"] == [True, True, False, True]


def test_a_tracker_that_fails_does_not_end_the_study(tmp_path, capsys):
    callback = Callback()
    callback.log_trial_result = lambda *_: 1 / 0
    watch = follow(callback, tmp_path, Outcome("complete"), Outcome("complete"))
    assert [told[0] for told in callback.told] == ["setup", "start"]
    assert [told[0] for told in watch._watch.told] == ["began", "epoch", "epoch", "ended"] * 2
    assert capsys.readouterr().err == "the tracker is told no more: ZeroDivisionError: division by zero\n"


def test_a_tracker_whose_folder_cannot_be_made_does_not_end_the_study(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    callback = Callback()
    watch = follow(callback, tmp_path / "file", Outcome("complete"), Outcome("complete"))
    assert callback.told == [("setup",)]
    assert [told[0] for told in watch._watch.told] == ["began", "epoch", "epoch", "ended"] * 2
    assert capsys.readouterr().err.startswith("the tracker is told no more: NotADirectoryError: ")


@pytest.mark.parametrize("word", ["a very long row ", "\N{GREEK SMALL LETTER ALPHA}\N{CJK UNIFIED IDEOGRAPH-4E00} "])
def test_trials_with_long_labels_have_a_folder_each_that_a_file_system_takes(tmp_path, word):
    labels = {seed: f"mine: {word * 40}, haa500, seed {seed}" for seed in (0, 1, 10)}
    made = [Tracked.of(trial(seed, label=label), tmp_path) for seed, label in labels.items()]
    [one.init_local_path() for one in made]
    names = [path.name for path in tmp_path.iterdir()]
    assert len(names) == 3
    assert max(len(name.encode()) for name in names) <= 200
    assert all(name.startswith("mine_") for name in names)
    assert {name.partition("_seed_")[2] for name in names} == {f"{seed}_{trial(seed).trial_id}" for seed in labels}


def test_a_tracker_that_is_not_known_is_refused():
    with pytest.raises(InputError, match="no such tracker; did you mean 'tensorboard'"):
        check_tracker("tensorbord")


def test_tensorboard_files_hold_what_was_told(tmp_path):
    pytest.importorskip("tensorboardX")
    pytest.importorskip("tensorboard")
    script = (
        "import sys; from pathlib import Path; from test_track import *; from studies.executor import _tracker\n"
        "from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n"
        "folder = Path(sys.argv[1])\n"
        "follow(_tracker('tensorboard', folder=folder), folder, Outcome('complete', metrics={'top1': 0.5}))\n"
        "run, = folder.iterdir(); events = EventAccumulator(str(run)).Reload()\n"
        "names = events.Tags()['scalars']\n"
        "print(run.name, {name: [(one.step, one.value) for one in events.Scalars(name)] for name in sorted(names)})\n"
    )
    here = Path(__file__).parent
    out = subprocess.run([sys.executable, "-c", script, tmp_path], cwd=here, capture_output=True, text=True)
    told = {"ray/tune/loss": [(1, 1.0), (2, 0.5)], "ray/tune/test_top1": [(2, 0.5)]}
    assert out.stdout == f"mine_Full,_haa500,_seed_3 {told}\n", out.stderr
