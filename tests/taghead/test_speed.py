"""What forward passes take, and the file that keeps it."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from taghead import speed
from taghead.backbones import BACKBONES
from taghead.config import Config, evolve
from taghead.errors import InputError
from taghead.recipes import recipe
from taghead.speed import Part, Setting, Speed, Subject, add, measure, measure_part, read_speed, subject_of, subjects

SETTING = Setting(device="here", threads=1, torch="2")
TINY = {"num_frames": 8, "crop_size": 32, "batch_sizes": (1, 2)}


def tiny() -> list[Subject]:
    return subjects(["r2plus1d_narrow"], **TINY)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Subject]:
    """What was measured, where measuring takes no process and no time."""
    found: list[Subject] = []

    def measured(subject: Subject, setting: Setting, **_: object) -> Part:
        found.append(subject)
        return Part(subject=subject, setting=setting, seconds=(1.0,))

    monkeypatch.setattr(speed, "_in_fresh_process", measured)
    return found


def test_bare_and_with_head_stand_side_by_side_at_each_batch_size() -> None:
    assert [(one.batch_size, one.head is not None) for one in tiny()] == [
        (1, False), (1, True), (2, False), (2, True),
    ]  # fmt: skip


def test_every_backbone_is_measured_unless_some_are_named() -> None:
    assert {one.backbone for one in subjects([])} == set(BACKBONES)


@pytest.mark.parametrize("subject", tiny())
def test_a_part_has_a_time_for_each_turn(subject: Subject) -> None:
    part = measure_part(subject, SETTING, turns=3)
    assert len(part.seconds) == 3
    assert min(part.seconds) <= part.median <= part.p95 <= max(part.seconds)
    assert part.clips_per_second == subject.batch_size / part.median


def test_a_model_is_measured_with_the_head_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def turn(model: torch.nn.Module, clips: torch.Tensor, precision: str) -> float:
        sizes.append((tuple(clips.shape), sum(one.numel() for one in model.head.parameters())))
        return 1.0

    monkeypatch.setattr(speed, "_turn", turn)
    for subject in subjects(["r2plus1d_narrow"], **TINY, overrides={"head.num_layers": 0, "head.edges": ()}):
        measure_part(subject, SETTING, turns=1)
    classifier = 129 * speed.NUM_CLASSES
    assert set(sizes) == {
        ((batch, 3, 8, 32, 32), classifier + positions) for batch in (1, 2) for positions in (0, 2 * 2 * 2 * 128)
    }


def test_warming_up_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([9.0, 1.0, 2.0])
    monkeypatch.setattr(speed, "_turn", lambda *_: next(times))
    assert measure_part(tiny()[0], SETTING, turns=2).seconds == (1.0, 2.0)


def test_a_process_of_its_own_tells_its_memory(tmp_path: Path) -> None:
    (part,) = measure(tmp_path / "speed.json", tiny()[:1], turns=1).parts
    assert len(part.seconds) == 1
    if sys.platform == "linux":
        weights = 4 * 440_488
        assert part.peak_memory_bytes is not None and weights < part.peak_memory_bytes < 2**30
    else:
        assert part.peak_memory_bytes is None


def test_what_was_measured_is_not_measured_again_unless_asked(asked: list[Subject], tmp_path: Path) -> None:
    path, wanted = tmp_path / "new" / "speed.json", tiny()
    measure(path, wanted[:2])
    told: list[Part] = []
    assert len(measure(path, wanted, on_part=told.append).parts) == 4
    assert asked == wanted and [part.subject for part in told] == wanted
    measure(path, wanted[:1], again=True)
    assert asked == [*wanted, wanted[0]]
    assert len(read_speed(path).parts) == 4


def test_another_number_of_threads_is_another_measurement(asked: list[Subject], tmp_path: Path) -> None:
    path = tmp_path / "speed.json"
    for threads in (1, 2, 2):
        measure(path, tiny()[:1], threads=threads)
    assert [part.setting.threads for part in read_speed(path).parts] == [1, 2]
    measure(path, tiny()[:1], precision="bfloat16")
    assert len(asked) == 3


def test_an_interrupted_measurement_keeps_what_it_has(asked: list[Subject], tmp_path: Path) -> None:
    def interrupt(part: Part) -> None:
        if part.subject.head is not None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path / "speed.json", tiny(), on_part=interrupt)
    assert [part.subject for part in read_speed(tmp_path / "speed.json").parts] == tiny()[:2]


def test_what_another_has_added_meanwhile_stays(asked: list[Subject], tmp_path: Path) -> None:
    path, (mine, theirs) = tmp_path / "speed.json", tiny()[:2]
    measure(path, [mine], on_part=lambda part: add(path, part.model_copy(update={"subject": theirs})))
    assert [part.subject for part in read_speed(path).parts] == [mine, theirs]


def test_a_part_that_failed_is_tried_again(asked: list[Subject], tmp_path: Path) -> None:
    path = tmp_path / "speed.json"
    measure(path, tiny()[:1])
    (part,) = read_speed(path).parts
    add(path, part.model_copy(update={"seconds": (), "error": "killed"}))
    measure(path, tiny()[:1])
    (part,) = read_speed(path).parts
    assert part.error is None and len(asked) == 2


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "does not fit into the memory of here"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "does not fit into the memory of here"),
    ],
)
def test_a_model_too_large_is_a_part_that_says_so(
    monkeypatch: pytest.MonkeyPatch, error: RuntimeError, said: str
) -> None:
    def turn(*_: object) -> float:
        raise error

    monkeypatch.setattr(speed, "_turn", turn)
    part = measure_part(tiny()[0], SETTING)
    assert part.error == said and part.seconds == () and part.median != part.median


def test_our_own_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(speed, "_turn", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        measure_part(tiny()[0], SETTING)
    failed = SimpleNamespace(returncode=1, stderr="Traceback: ...", stdout="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(RuntimeError, match="Traceback: "):
        measure(tmp_path / "speed.json", tiny()[:1])


def test_a_process_that_the_system_kills_is_a_part_that_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=-9, stderr="", stdout=""))
    (part,) = measure(tmp_path / "speed.json", tiny()[:1]).parts
    assert part.error == "killed, as systems do when memory runs out"


def same(changes: dict[str, object]) -> bool:
    base = recipe("haa500")
    return subject_of(evolve(base, changes)) == subject_of(base)


def test_experiments_that_do_equal_work_are_one_subject() -> None:
    assert same({"head.alpha": 0.5, "head.dropout": 0.1, "head.k_prop": 3, "train.lr": 1e-3, "data.flip": 0.0})
    assert not same({"head.ffn_dim": 256})
    assert not same({"data.num_frames": 64})
    assert not same({"model.head": "linear"})


@pytest.mark.parametrize(
    "changes",
    [{"head.propagation": "step_by_step"}, {"head.rewiring": 0, "head.readout": "max"}],
    ids=["asked for", "a control graph that no mean hides"],
)
def test_where_steps_are_taken_one_by_one_their_number_is_measured(changes: dict[str, object]) -> None:
    steps = evolve(recipe("haa500"), changes)
    assert subject_of(steps) != subject_of(evolve(steps, {"head.k_prop": 3}))
    measured = subjects(["r2plus1d_narrow"], **TINY, overrides={**changes, "head.k_prop": 3})[-1]
    assert measured.config.head.k_prop == 3


def test_a_mean_sees_a_control_graph_in_one_sum_however_many_steps_it_has() -> None:
    rewired = evolve(recipe("haa500"), {"head.rewiring": 0})
    assert subject_of(rewired) == subject_of(evolve(rewired, {"head.k_prop": 3}))


def test_a_subject_of_a_config_is_one_that_the_command_measures() -> None:
    config = evolve(Config(), {"model.backbone": "x3d_m", "head.ffn_dim": 64})
    assert subject_of(config, batch_size=8) in subjects(["x3d_m"], overrides={"head.ffn_dim": 64})


@pytest.mark.parametrize("content", ["", "{}", '{"schema_version": 1, "parts": 3}', '{"schema_version": 9}'])
def test_a_damaged_file_is_named_and_left_as_it_is(asked: list[Subject], tmp_path: Path, content: str) -> None:
    path = tmp_path / "speed.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"speed\.json: (not a file of speeds|written by a newer)"):
        measure(path, tiny()[:1])
    assert path.read_text() == content and asked == []


def test_the_file_says_its_version(asked: list[Subject], tmp_path: Path) -> None:
    measure(tmp_path / "speed.json", tiny()[:1])
    assert json.loads((tmp_path / "speed.json").read_text())["schema_version"] == speed.SCHEMA_VERSION
    assert read_speed(tmp_path / "speed.json") == Speed(parts=read_speed(tmp_path / "speed.json").parts)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backbones": ["x3d"]}, "did you mean 'x3d_m'"),
        ({"backbones": ["csn_r101"], "num_frames": 12}, "multiple of 8 for csn_r101"),
        ({"backbones": [], "batch_sizes": (0,)}, "batch sizes must be 1 or more, but got 0; give 1,8"),
        ({"backbones": [], "batch_sizes": ()}, "but got none"),
        ({"backbones": [], "overrides": {"train.lr": 1.0}}, "but got train.lr; leave it out"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        subjects(**options)
