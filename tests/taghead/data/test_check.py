import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from taghead.data.check import check
from taghead.data.finegym import NUM_CLASSES
from taghead.errors import InputError

EMPTY_CLASS = 42
LABELS = [label for label in range(99) if label != EMPTY_CLASS]
Rows = list[tuple[str, int]]


@pytest.fixture(scope="module")
def a_clip(tmp_path_factory: pytest.TempPathFactory, write_video: Callable[..., Path]) -> bytes:
    path = tmp_path_factory.mktemp("clip") / "a.mp4"
    return write_video(path, lambda number: np.full((16, 16, 3), 60 * number, np.uint8), num_frames=3).read_bytes()


def own(a_clip: bytes, number: int) -> bytes:
    """The clip with a box that no player reads at its end, so that no two files are the same."""
    return a_clip + struct.pack(">I4sI", 12, b"free", number)


def write_gym(root: Path, train: Rows, test: Rows) -> Path:
    annotations = root / "annotations"
    annotations.mkdir(parents=True)
    lines = [f"Clabel: {label}; set: 1; Glabel: {label}; name {label}" for label in range(NUM_CLASSES["gym99"])]
    (annotations / "gym99_categories.txt").write_text("\n".join(lines))
    for file, rows in (("train_element_v1.1", train), ("val_element", test)):
        text = "".join(f"{clip_id} {label}\n" for clip_id, label in rows)
        (annotations / f"gym99_{file}.txt").write_text(text)
    (root / "clips").mkdir()
    return root


@pytest.fixture
def gym(tmp_path: Path, a_clip: bytes) -> Path:
    """A hundred rows: 7 clips are missing, 3 broken, no clip is of class 42."""
    rows = [(f"{number:011d}_E_000001_000002_A_0000_0001", LABELS[number % len(LABELS)]) for number in range(100)]
    root = write_gym(tmp_path / "gym", rows[:70], rows[70:])
    for number, (clip_id, _) in enumerate(rows):
        if not 10 <= number < 15 and not 80 <= number < 82:
            (root / "clips" / f"{clip_id}.mp4").write_bytes(own(a_clip, number))
    broken = {20: b"", 21: b"no video", 90: a_clip[: len(a_clip) // 2]}
    for number, data in broken.items():
        (root / "clips" / f"{rows[number][0]}.mp4").write_bytes(data)
    return root


def of_rule(report, rule: str) -> list:
    return [finding for finding in report.findings if finding.rule == rule]


def test_a_hundred_rows_with_seven_missing_three_broken_and_one_class_empty_are_told_exactly(gym):
    report = check("gym99", gym, workers=2)
    errors = [(finding.rule, finding.message) for finding in report.findings if finding.level == "error"]
    assert [rule for rule, _ in errors] == ["missing", "unreadable"]
    assert "7 of 100 clips of gym99 are missing" in errors[0][1] and "3 of 93 clips do not decode" in errors[1][1]
    missing = [f"clips/{number:011d}_E_000001_000002_A_0000_0001.mp4" for number in [80, 81, *range(10, 15)]]
    report.write_missing_list(gym / "missing.txt")
    assert (gym / "missing.txt").read_text().splitlines() == missing
    assert [path[6:17] for path in report.unreadable] == ["00000000020", "00000000021", "00000000090"]
    counts = {split: tuple(numbers.values()) for split, numbers in report.as_json()["splits"].items()}
    assert counts == {"train": (70, 65, 5, 2), "test": (30, 28, 2, 1)}
    (empty,) = of_rule(report, "no clip in any list")
    assert empty.message == "1 of 99 classes has no clip in any list." and empty.items == ("42 name 42",)
    # of the ten numbers that cannot be used none is 0, 1, 98 or 99: each was its class's only one
    (lost,) = of_rule(report, "no usable clip, though some are listed")
    assert [int(item.split()[0]) for item in lost.items] == [LABELS[n] for n in (*range(10, 15), 20, 21, 80, 81, 90)]
    assert report.exit_status == 1


def test_what_is_missing_or_broken_is_a_warning_where_it_shall_be_skipped(gym):
    report = check("gym99", gym, missing="skip", workers=1)
    assert {finding.level for finding in report.findings} == {"warning", "fact"} and report.exit_status == 0
    assert [of_rule(report, rule)[0].level for rule in ("missing", "unreadable")] == ["warning", "warning"]


def test_without_decoding_broken_files_are_not_noticed_and_the_text_says_so(gym):
    report = check("gym99", gym, decode=False)
    assert report.unreadable == {} and "not tried" in report.text()
    assert report.as_json()["splits"]["train"] == {"listed": 70, "present": 65, "missing": 5, "unreadable": None}


def test_progress_counts_the_clips(gym):
    seen = []
    check("gym99", gym, workers=1, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(number, 93) for number in range(1, 94)]


def test_a_class_that_is_in_one_split_only_is_named(tmp_path, a_clip):
    root = write_gym(tmp_path / "gym", [("a", 0), ("b", 1)], [("c", 0), ("d", 2)])
    for number, name in enumerate("abcd"):
        (root / "clips" / f"{name}.mp4").write_bytes(own(a_clip, number))
    report = check("gym99", root, workers=1)
    assert of_rule(report, "no usable training clip")[0].items == ("2 name 2",)
    assert of_rule(report, "no usable test clip")[0].items == ("1 name 1",)
    assert of_rule(report, "no usable validation clip") == []  # Gym99 has no such split
    assert of_rule(report, "no clip in any list")[0].message == "96 of 99 classes have no clip in any list."
    assert report.exit_status == 0


def test_source_videos_in_both_splits_are_counted_and_named(tmp_path):
    event = "E_000001_000002_A_0000_0001"
    train = [(f"aaaaaaaaaaa_{event}", 0), (f"b_E_1_2_bbb_{event}", 0), (f"ccccccccccc_{event}", 1)]
    test = [(f"aaaaaaaaaaa_{event[:-1]}2", 0), (f"b_E_1_2_bbb_{event[:-1]}2", 0), (f"ddddddddddd_{event}", 1)]
    report = check("gym99", write_gym(tmp_path / "gym", train, test), missing="skip", decode=False)
    (shared,) = of_rule(report, "shared videos")
    assert shared.level == "warning" and shared.items == ("aaaaaaaaaaa", "b_E_1_2_bbb")
    assert shared.message.startswith("2 of 4 source videos have clips in more than one split")


def test_files_of_one_content_are_told_across_splits_and_within(tmp_path, a_clip):
    for name in ("x", "y"):
        (tmp_path / "video" / name).mkdir(parents=True)
        for number in range(20):
            path = tmp_path / "video" / name / f"{name}_{number:03d}.mp4"
            path.write_bytes(own(a_clip, number + 20 * (name == "y")))
    (tmp_path / "video" / "x" / "x_016.mp4").write_bytes(own(a_clip, 0))
    (tmp_path / "video" / "y" / "y_001.mp4").write_bytes(own(a_clip, 2))
    across, within = of_rule(check("haa500", tmp_path, decode=False), "same content")
    assert across.items == ("video/x/x_000.mp4 (train) = video/x/x_016.mp4 (val)",)
    assert within.items == ("video/x/x_002.mp4 (train) = video/y/y_001.mp4 (train), of different classes",)
    assert across.level == within.level == "warning"


def test_all_faults_of_the_lists_are_told_with_file_and_line(told, tmp_path):
    root = write_gym(tmp_path / "gym", [("a", 0), ("b", 99), ("a", 0), ("no label", -1)], [("a", 0), ("c", 1)])
    with (root / "annotations" / "gym99_train_element_v1.1.txt").open("a") as file:
        file.write("label-less\n")
    report = check("gym99", root, decode=False)
    train, val = (rf"gym99_{name}.txt" for name in ("train_element_v1.1", "val_element"))
    told(report.findings, rf"{train}:5: expected .<clip id> <label>., got 'label-less'")
    told(report.findings, rf"{train}:2: 0 <= label < 99 must hold, but got 99")
    told(report.findings, rf"{train}:4: 0 <= label < 99 must hold, but got -1")
    told(report.findings, rf"{train}:3: clip 'a' must occur once, but stands in .*{train}:1 too")
    told(report.findings, rf"{val}:1: clip 'a' must be in one split, but is in test here and in train by .*{train}:1")


def test_one_based_labels_are_one_error_and_not_one_a_line(tmp_path):
    rows = [(f"c{label}", label) for label in range(1, 100)]
    report = check("gym99", write_gym(tmp_path / "gym", rows, [("v", 0)]), decode=False, missing="skip")
    (finding,) = [finding for finding in report.findings if finding.level == "error" and "label" in finding.rule]
    assert "gym99_train_element_v1.1.txt:99: " in finding.message and "one-based" in finding.message


def test_a_data_root_that_is_not_there_is_no_report(tmp_path):
    with pytest.raises(InputError, match="no such data root"):
        check("gym99", tmp_path / "nowhere")


def test_the_text_of_a_clean_set_is_short(tmp_path, a_clip):
    (tmp_path / "video" / "x").mkdir(parents=True)
    (tmp_path / "synthetic.json").write_text("{}")
    for number in range(20):
        (tmp_path / "video" / "x" / f"x_{number:03d}.mp4").write_bytes(own(a_clip, number))
    assert check("synthetic", tmp_path, workers=1).text().splitlines()[1:] == [
        "          listed  present  missing  unreadable",
        "train         16       16        0           0",
        "val            1        1        0           0",
        "test           3        3        0           0",
        "no errors, no warnings.",
    ]


def test_the_text_of_twenty_thousand_missing_clips_can_be_read_and_the_list_holds_all(tmp_path):
    train = [(f"{number:05d}", number % 99 if number % 2 else 7) for number in range(20_000)]
    report = check("gym99", write_gym(tmp_path / "gym", train, [("v", 0)]), decode=False)
    text = report.text().splitlines()
    assert len(text) < 40 and max(map(len, text)) < 400
    assert "         class 7 name 7: 10,101 of 10,101" in text
    report.write_missing_list(tmp_path / "missing.txt")
    assert (tmp_path / "missing.txt").read_bytes().count(b"\n") == 20_001


def test_json_holds_all_findings_and_every_class(gym):
    report = check("gym99", gym, workers=1)
    report.write_json(gym / "report.json")
    data = json.loads((gym / "report.json").read_text())
    assert data["exit_status"] == 1 and len(data["missing"]) == 7 and len(data["unreadable"]) == 3
    assert len(data["findings"]) == len(report.findings) and len(data["classes"]) == 99
    assert data["classes"][EMPTY_CLASS] == {
        "label": EMPTY_CLASS,
        "name": "name 42",
        "splits": {
            split: dict.fromkeys(("listed", "present", "missing", "unreadable"), 0) for split in ("train", "test")
        },
    }


def test_names_that_are_no_text_or_command_a_terminal_are_escaped(tmp_path):
    name = os.fsdecode(b"\xff\x1b[2J")
    (tmp_path / "video" / name).mkdir(parents=True)
    (tmp_path / "video" / name / f"{name}_000.mp4").touch()
    report = check("haa500", tmp_path, decode=False)
    assert r"class 0 \udcff\x1b[2J: 19 of 20" in report.text()
    report.write_missing_list(tmp_path / "missing.txt")
    first = (tmp_path / "missing.txt").read_bytes().split(b"\n")[0]
    assert first == os.fsencode(f"video/{name}/{name}_017.mp4")
    report.write_json(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["missing"][0] == f"video/{name}/{name}_017.mp4"
