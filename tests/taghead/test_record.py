import json
from pathlib import Path

import pytest

from taghead import record as module
from taghead.config import Config, evolve
from taghead.errors import InputError
from taghead.record import DataFacts, MachineFacts, Record, keepable, read_record, trial_id, write_record

# Ids of configs as they were when RECIPE_VERSION 2 was made: a new field with a default must change none of them.
KNOWN = Path(__file__).parent / "known_trial_ids.json"


def known_record(**changes: object) -> Record:
    values = {
        "trial_id": "0123456789abcdef",
        "seed": 0,
        "status": "complete",
        "config": Config(),
        "data": DataFacts(
            dataset="haa500", fingerprint="f" * 16, synthetic=False, num_classes=3, num_train=9, num_val=1, num_test=2,
            unreadable={"a clip, with 'quotes'": "no such thing"},
        ),
        "metrics": {"top1": 1 / 3, "mca": 0.25},
        "machine": MachineFacts(device="cpu", threads=1, python="3.11", torch="2.13"),
    }  # fmt: skip
    return Record.model_validate(values | changes)


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    record = known_record()
    write_record(record, tmp_path)
    assert read_record(tmp_path) == record
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_a_record_from_before_class_names_were_kept_is_read(tmp_path: Path) -> None:
    write_record(known_record(), tmp_path)
    path = tmp_path / "record.json"
    values = json.loads(path.read_text())
    del values["data"]["classes"]
    path.write_text(json.dumps(values))
    assert read_record(tmp_path).data.classes == ()


def test_a_linear_head_keeps_all_but_frame_means() -> None:
    linear = evolve(Config(), {"model.head": "linear"})
    assert keepable(Config(), ("weights", "frame_means")) == {"weights", "frame_means"}
    assert keepable(linear, ("weights", "embeddings", "frame_means")) == {"weights", "embeddings"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 1}', "null"])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(InputError, match=r"record\.json: not a result record"):
        read_record(tmp_path)


def test_a_record_of_a_newer_version_asks_for_an_upgrade(tmp_path: Path) -> None:
    write_record(known_record(), tmp_path)
    path = tmp_path / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    with pytest.raises(InputError, match="newer taghead"):
        read_record(tmp_path)


def test_no_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such result record"):
        read_record(tmp_path)


def id_of(config: Config, **changes: object) -> str:
    arguments: dict = {"seed": 0, "data": "d" * 16, "weights": "e" * 16} | changes
    return trial_id(config, **arguments)


def test_everything_that_an_experiment_is_enters_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    base = id_of(Config())
    assert id_of(Config()) == base
    others = {
        id_of(evolve(Config(), {"head.alpha": 0.2})),
        id_of(Config(), seed=1),
        id_of(Config(), data="0" * 16),
        id_of(Config(), weights=None),
    }
    monkeypatch.setattr(module, "RECIPE_VERSION", module.RECIPE_VERSION + 1)
    others.add(id_of(Config()))
    assert len(others | {base}) == 6


def test_fields_that_are_not_read_do_not_enter() -> None:
    linear = evolve(Config(), {"model.head": "linear"})
    assert id_of(evolve(linear, {"head.alpha": 0.2})) == id_of(linear)


def test_the_ids_of_this_recipe_version_stay_what_they_were() -> None:
    known = json.loads(KNOWN.read_text())
    assert known["recipe_version"] == module.RECIPE_VERSION
    for case in known["cases"]:
        assert id_of(evolve(Config(), case["overrides"])) == case["trial_id"], case


def test_the_commit_is_named_only_inside_a_checkout() -> None:
    commit = module.code_commit()
    assert commit is None or len(commit.rstrip("+")) == 12
