import json
from types import SimpleNamespace

import pytest
from fakes import BASE, EPOCHS, trial, work

from studies.estimate import Clips, count_clips, device_name, duration, hours, measure, schedule, slots
from studies.store import Store
from taghead.config import evolve

CLIPS = Clips(num_classes=3, train=9, val=0, test=3, id_length=10)  # as the records of fakes say
STEP = SimpleNamespace(seconds_per_clip=2.0, evaluation_seconds_per_clip=0.5)


def no_probe(config, num_classes):
    raise AssertionError("nothing is to be measured")


def estimate(todo, root, *, clips=CLIPS, probe=no_probe, at_once=1, device="cpu", threads=1):
    place = {"device": device, "threads": threads, "slots": at_once}
    return hours(todo, store=Store(root), clips=lambda config: clips, probe=probe, **place)


def finish(root, one, *, seconds, **changes):
    """Runs a trial and makes its record say how long it took, and where."""
    work(root)(one, lambda row: None)
    path = root / "trials" / one.trial_id / "record.json"
    record = json.loads(path.read_text())
    record["seconds"] = seconds
    record["machine"]["device"] = device_name("cpu")
    for part, values in changes.items():
        record[part] = {**record[part], **values} if isinstance(values, dict) else values
    path.write_text(json.dumps(record))


def test_a_trial_takes_what_the_median_of_its_like_took(root):
    for seed, seconds in ((0, 100.0), (1, 120.0), (2, 900.0)):
        finish(root, trial(seed), seconds=seconds)
    found = estimate([trial(3)], root)
    assert found.seconds == pytest.approx(120.0)
    assert str(found) == "time: about 2 min on 1 worker (from 3 trials like these in the store)"


def test_what_changes_the_score_and_not_the_cost_is_like(root):
    finish(root, trial(0), seconds=100.0)
    changes = {"head.alpha": 0.3, "head.edges": (), "head.readout": "max", "train.lr": 1e-3, "data.flip": 0.0}
    assert estimate([trial(0, config=evolve(BASE, changes))], root).seconds == pytest.approx(100.0)


def test_twice_the_epochs_or_clips_take_twice_as_long(root):
    finish(root, trial(0), seconds=100.0)
    passes = EPOCHS * 9 + 3 / 3
    longer = trial(0, config=evolve(BASE, {"train.epochs": 2 * EPOCHS}))
    assert estimate([longer], root).seconds == pytest.approx(100.0 * (2 * EPOCHS * 9 + 1) / passes)
    more = CLIPS._replace(train=18, test=6)
    assert estimate([trial(1)], root, clips=more).seconds == pytest.approx(200.0)


def test_validation_in_every_epoch_counts_by_its_forward_passes(root):
    finish(root, trial(0), seconds=100.0)
    validated = estimate([trial(1)], root, clips=CLIPS._replace(val=9))
    assert validated.seconds == pytest.approx(100.0 * (EPOCHS * 9 + EPOCHS * 3 + 1) / (EPOCHS * 9 + 1))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"head.ffn_dim": 64}, "with the same backbone and clips in the store"),
        ({"train.batch_size": 4}, "with the same backbone and clips in the store"),
        ({"model.head": "linear"}, "with the same backbone and clips in the store"),
    ],
)
def test_other_heads_on_the_backbone_tell_where_no_trial_is_like(root, changes, said):
    finish(root, trial(0), seconds=100.0)
    found = estimate([trial(0, config=evolve(BASE, changes))], root)
    assert found.seconds == pytest.approx(100.0)
    assert found.sources == (f"from 1 trial {said}",)


def test_other_clips_tell_by_their_number_where_no_trial_is_of_these(root):
    finish(root, trial(0), seconds=100.0, data={"fingerprint": "of others", "num_train": 18, "num_test": 6})
    found = estimate([trial(1)], root)
    assert found.seconds == pytest.approx(50.0)
    assert found.sources == ("from 1 trial with the same backbone on other clips in the store",)


@pytest.mark.parametrize(
    "changes",
    [
        {"machine": {"device": "NVIDIA H100"}},
        {"machine": {"threads": 2}},
        {"status": "diverged"},
        {"config": {"model": {**BASE.model.model_dump(), "freeze_backbone": True}}},
        {"config": {"data": {**BASE.data.model_dump(), "num_frames": 64}}},
    ],
    ids=["device", "threads", "diverged", "frozen", "frames"],
)
def test_a_trial_that_costs_otherwise_tells_nothing(root, changes):
    finish(root, trial(0), seconds=100.0, **changes)
    found = estimate([trial(1)], root, probe=lambda config, num_classes: STEP)
    assert found.seconds == EPOCHS * 9 * 2.0 + 3 * 0.5
    assert str(found).endswith("(from one training step on cpu; decoding not counted)")


def test_a_damaged_record_is_passed_over(root):
    finish(root, trial(0), seconds=100.0)
    finish(root, trial(1), seconds=500.0)
    (root / "trials" / trial(1).trial_id / "record.json").write_text('{"status": "complete", "mach')
    assert estimate([trial(2)], root).seconds == pytest.approx(100.0)


def test_a_record_from_before_a_field_was_there_is_like(root):
    finish(root, trial(0), seconds=100.0)
    path = root / "trials" / trial(0).trial_id / "record.json"
    record = json.loads(path.read_text())
    del record["config"]["head"]["edge_dropout"]
    path.write_text(json.dumps(record))
    assert estimate([trial(1)], root).sources == ("from 1 trial like these in the store",)


def test_of_a_trial_that_was_begun_only_the_epochs_left_count(root):
    begun = Store(root).running / trial(1).trial_id
    begun.mkdir(parents=True)
    (begun / "history.csv").write_text("epoch,loss\n1,0.5\n2,0.4\n3,0.3\n")
    found = estimate([trial(1)], root, probe=lambda config, num_classes: STEP)
    assert found.seconds == (EPOCHS - 3) * 9 * 2.0 + 3 * 0.5


def test_of_a_trial_that_lacks_a_file_only_its_evaluation_counts(root):
    finish(root, trial(0, keep=("weights",)), seconds=100.0)
    found = estimate([trial(0, keep=("weights", "embeddings"))], root)
    assert found.seconds == pytest.approx(100.0 / (EPOCHS * 9 + 1))


def test_one_step_is_measured_for_each_kind_of_model_and_each_is_counted(root):
    others = [evolve(BASE, {"head.num_layers": layers, "head.alpha": alpha}) for layers in (1, 2) for alpha in (0, 1)]
    found = estimate([trial(config=one) for one in others], root, probe=lambda config, num_classes: STEP)
    assert found.sources == ("from one training step of each of 2 models on cpu; decoding not counted",)


@pytest.mark.parametrize(("views", "made"), [(0, 9 + 3), (2, 2 * 9 + 3), (99, EPOCHS * 9 + 3)])
def test_where_tokens_are_stored_the_backbone_runs_once_for_all_trials(root, views, made):
    config = evolve(BASE, {"model.freeze_backbone": True, "train.token_views": views})
    head = EPOCHS * 9 * (2.0 - 0.5)  # a step without the forward pass that an evaluation is
    one, both = (
        estimate([trial(seed, config=config) for seed in seeds], root, probe=lambda config, num_classes: STEP).seconds
        for seeds in ((0,), (0, 1))
    )
    assert one == pytest.approx(made * 0.5 + head)
    assert both == pytest.approx(one + head)


def test_a_measured_step_is_said_before_and_done_once(root, monkeypatch, capsys):
    measured = []

    def step_cost(config, **place):
        assert capsys.readouterr().out.startswith("measuring one training step of r2plus1d_34 with a tag head on cpu")
        measured.append(config)
        return STEP

    monkeypatch.setattr("taghead.probe.step_cost", step_cost)
    probe = measure("cpu", threads=1)
    todo = [trial(seed, config=evolve(BASE, {"head.alpha": alpha})) for seed in (0, 1) for alpha in (0.1, 0.2)]
    estimate(todo, root, probe=probe)
    assert len(measured) == 1


def test_where_the_device_is_not_here_nothing_is_measured_and_that_is_said(root):
    probe = measure("cuda:99", threads=1)
    found = estimate([trial(0)], root, probe=probe, device="cuda:99")
    assert (found.seconds, found.unknown) == (0.0, 1)
    assert str(found).startswith("time: not known")


def test_trials_of_which_nothing_is_known_are_named_beside_the_others(root):
    finish(root, trial(0), seconds=100.0)
    strange = trial(0, config=evolve(BASE, {"data.num_frames": 64}))
    found = estimate([trial(1), strange], root, probe=lambda config, num_classes: None)
    assert "1 trials of which nothing is known not counted" in str(found)


def test_workers_share_the_trials_and_the_longest_begins_first():
    assert schedule([1, 1, 1, 1, 4], 2) == 4
    assert schedule([3, 3, 3], 2) == 6
    assert schedule([5], 8) == 5
    assert schedule([], 2) == 0


def test_a_cluster_whose_workers_are_unknown_is_told_the_time_of_all_trials(root):
    for seed in (0, 1):
        finish(root, trial(seed), seconds=7200.0)
    assert str(estimate([trial(2), trial(3)], root, at_once=None)).startswith("time: about 4.0 h in all (from 2 trials")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"workers": 3, "threads": 2}, 3),
        ({"threads": 2, "total_cpus": 8}, 4),
        ({"threads": 2, "total_cpus": 8, "workers": 3}, 3),
        ({"threads": 4, "total_cpus": 2}, 1),
        ({"total_cpus": 16, "gpus": 0.3, "num_gpus": 2}, 6),
        ({"total_cpus": 16, "gpus": 0.3333, "num_gpus": 2}, 6),
        ({"total_cpus": 16, "gpus": 2.0, "num_gpus": 5}, 2),
        ({"total_cpus": 4, "gpus": 0.1, "num_gpus": 1}, 4),
        ({"address": "auto"}, None),
        ({"address": "auto", "workers": 5}, 5),
    ],
)
def test_as_many_trials_run_at_once_as_there_is_room_for(given, expected):
    unset = {"workers": None, "threads": 1, "total_cpus": None, "gpus": 0.0, "num_gpus": None, "address": None}
    assert slots(**{**unset, **given}) == expected


def test_clips_are_counted_once_for_each_split_of_a_data_set(tiny_clips, monkeypatch):
    from taghead import identity

    read = []
    monkeypatch.setattr(identity, "read_clips", lambda *words, **more: read.append(words) or real(*words, **more))
    real = __import__("taghead.data.clips", fromlist=["read_clips"]).read_clips
    clips = count_clips({"synthetic": identity.Machine(data_root=tiny_clips)})
    config = evolve(BASE, {"data.dataset": "synthetic"})
    assert clips(config)[:4] == clips(evolve(config, {"head.alpha": 0.3}))[:4] == (4, 64, 4, 12)
    assert len(read) == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (40, "40 s"), (100, "2 min"), (5300, "89 min"), (7560, "2.1 h"), (300_000, "3.5 days")],
)
def test_a_duration_is_told_in_the_unit_that_fits(seconds, text):
    assert duration(seconds) == text
