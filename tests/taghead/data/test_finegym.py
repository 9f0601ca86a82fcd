from pathlib import Path

import pytest

from taghead.data.finegym import NUM_CLASSES, read_finegym
from taghead.errors import InputError

CLIP = "a-_b_E_E2cde_E_000043_000049_A_0000_0001"


def write_lists(folder: Path, *, dataset: str = "gym99", train: str = f"{CLIP} 3\n", val: str = "b 98\n") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        f"Clabel: {label:3}; set:  1; Glabel: {label:3}; (VT) round-off, {label}"
        for label in range(NUM_CLASSES[dataset])
    ]
    (folder / f"{dataset}_categories.txt").write_text("\n".join(lines))
    (folder / f"{dataset}_train_element_v1.1.txt").write_bytes(train.encode())
    (folder / f"{dataset}_val_element.txt").write_bytes(val.encode())


@pytest.mark.parametrize("dataset", ["gym99", "gym288"])
def test_the_val_list_is_the_test_split_and_there_is_no_other(tmp_path, dataset):
    write_lists(tmp_path, dataset=dataset)
    classes, rows = read_finegym(tmp_path, dataset=dataset)
    assert len(classes) == NUM_CLASSES[dataset] and classes[3] == "(VT) round-off, 3"
    assert [row[:4] for row in rows] == [("train", CLIP, 3, f"{CLIP}.mp4"), ("test", "b", 98, "b.mp4")]


def test_lists_in_annotations_and_clips_in_clips_are_found(tmp_path):
    write_lists(tmp_path / "annotations")
    (tmp_path / "clips").mkdir()
    assert [row.path for row in read_finegym(tmp_path, dataset="gym99").rows] == [f"clips/{CLIP}.mp4", "clips/b.mp4"]


def test_byte_order_marks_carriage_returns_tabs_and_blank_lines_parse(tmp_path):
    write_lists(tmp_path, train="\ufeffa 1\r\n\r\n b\t\t2 \r\n\n", val="\ufeffc   0")
    rows = read_finegym(tmp_path, dataset="gym99").rows
    assert [(row.clip_id, row.label) for row in rows] == [
        ("a", 1),
        ("b", 2),
        ("c", 0),
    ]


def test_version_1_1_of_the_training_list_is_preferred_to_1_0(tmp_path):
    write_lists(tmp_path, train="new 0")
    (tmp_path / "gym99_train_element_v1.0.txt").write_text("old 0")
    assert read_finegym(tmp_path, dataset="gym99").rows[0].clip_id == "new"
    (tmp_path / "gym99_train_element_v1.1.txt").unlink()
    assert read_finegym(tmp_path, dataset="gym99").rows[0].clip_id == "old"


@pytest.mark.parametrize("line", ["abc", "abc x", "abc 1.5", "7"])
def test_a_line_without_a_label_is_named_by_file_and_number(tmp_path, line):
    write_lists(tmp_path, train=f"a 1\n\n{line}\n")
    with pytest.raises(InputError, match=f'gym99_train_element_v1.1.txt:3: expected "<clip id> <label>", got {line!r}'):
        read_finegym(tmp_path, dataset="gym99")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Clabel: 0; (VT) round-off", 'txt:100: expected "Clabel: 0; set: 1; Glabel: 1; <name>"'),
        ("Clabel: 5; set: 1; Glabel: 1; twice", "txt:100: each label of 0 to 98 must occur once, but got 5"),
        ("Clabel: 99; set: 1; Glabel: 1; too many", "txt:100: each label of 0 to 98 must occur once, but got 99"),
    ],
)
def test_a_category_that_is_malformed_double_or_out_of_range_is_named(tmp_path, line, message):
    write_lists(tmp_path)
    with (tmp_path / "gym99_categories.txt").open("a") as file:
        file.write(f"\n{line}\n")
    with pytest.raises(InputError, match=message):
        read_finegym(tmp_path, dataset="gym99")


def test_a_cut_categories_file_is_refused(tmp_path):
    write_lists(tmp_path)
    (tmp_path / "gym99_categories.txt").write_text("Clabel: 0; set: 1; Glabel: 1; one\n")
    with pytest.raises(InputError, match="expected 99 categories, got 1; download the file again"):
        read_finegym(tmp_path, dataset="gym99")


@pytest.mark.parametrize("name", ["gym99_categories.txt", "gym99_train_element_v1.1.txt", "gym99_val_element.txt"])
def test_a_missing_list_is_named_with_the_places_looked_in(tmp_path, name):
    write_lists(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=rf"no .* in .*annotations or .*: expected .*{name}"):
        read_finegym(tmp_path, dataset="gym99")


def test_a_list_that_is_no_utf8_text_is_refused(tmp_path):
    write_lists(tmp_path)
    (tmp_path / "gym99_val_element.txt").write_bytes("b 1".encode("utf-16"))
    with pytest.raises(InputError, match=r"gym99_val_element.txt: expected UTF-8 text; save the file as UTF-8"):
        read_finegym(tmp_path, dataset="gym99")
