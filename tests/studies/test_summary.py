from types import SimpleNamespace

import pytest
from fakes import BASE, trial, work

from studies import footprint, summary
from studies.store import Store
from taghead.config import evolve
from taghead.errors import InputError

MACHINES = {"haa500": SimpleNamespace(data_root=None, missing="error")}


@pytest.fixture(autouse=True)
def counted(monkeypatch):
    """No clips are read."""
    clips = SimpleNamespace(num_classes=3, train=9, val=0, test=3, id_length=10)
    monkeypatch.setattr("studies.estimate.count_clips", lambda machines: lambda config: clips)


def said(capsys, todo, root, **place):
    summary.show_costs(todo, Store(root), MACHINES, **{"device": "cpu", "threads": 1, "slots": 2, **place})
    return [line.strip() for line in capsys.readouterr().out.splitlines()]


def finish(root, one):
    from studies.estimate import device_name

    work(root)(one, lambda row: None)
    path = root / "trials" / one.trial_id / "record.json"
    path.write_text(path.read_text().replace('"device": "cpu"', f'"device": "{device_name("cpu")}"'))


def test_where_nothing_is_left_nothing_is_said(root, capsys):
    assert said(capsys, [], root) == []


def test_time_and_disk_are_a_line_each(root, capsys):
    finish(root, trial(0))
    time, disk = said(capsys, [trial(1)], root)
    assert time.startswith("time: about 1 s on 2 workers (from 1 trial like these in the store)")
    assert disk.startswith("disk: ") and disk.endswith(f"free in {root}")


def test_frames_are_told_where_they_will_be_kept(root, tmp_path, capsys):
    finish(root, trial(0))
    assert said(capsys, [trial(1)], root, cache=tmp_path / "frames")[2].startswith("frames: up to ")


def test_where_all_trials_have_their_like_no_step_is_measured(root, capsys, monkeypatch):
    def measured(*_, **__):
        raise AssertionError

    monkeypatch.setattr("taghead.probe.step_cost", measured)
    finish(root, trial(0))
    said(capsys, [trial(1)], root)
    with pytest.raises(AssertionError):
        said(capsys, [trial(1, config=evolve(BASE, {"data.num_frames": 64}))], root)


def test_shares_of_a_gpu_say_how_many_trials_run_at_once(root, capsys, monkeypatch):
    finish(root, trial(0))
    shares = {trial(1).trial_id: 0.5, trial(2).trial_id: 0.25}
    monkeypatch.setattr(footprint, "measured_shares", lambda todo, clips, probe: shares)
    monkeypatch.setattr("studies.estimate._num_gpus", lambda: 1)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    gpus, time, _ = said(capsys, [trial(1), trial(2)], root, auto_gpus=True, slots=None)
    assert gpus == "gpus: each trial takes 0.25 to 0.5 of a GPU, by the memory of one training step"
    assert " on 2 workers " in time


def test_shares_without_a_gpu_are_refused(root, capsys, monkeypatch):
    monkeypatch.setattr(footprint, "device_name", lambda device: None)
    with pytest.raises(InputError, match="give a number"):
        said(capsys, [trial(1)], root, auto_gpus=True)
