from pathlib import Path

import pytest

from taghead.data.finegym import NUM_CLASSES, PUBLISHED, read_finegym, video_of

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
    classes, rows, _ = read_finegym(tmp_path, dataset=dataset)
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
def test_a_line_without_a_label_is_named_by_file_and_number(told, tmp_path, line):
    write_lists(tmp_path, train=f"a 1\n\n{line}\n")
    told(
        read_finegym(tmp_path, dataset="gym99").findings,
        f'gym99_train_element_v1.1.txt:3: expected "<clip id> <label>", got {line!r}',
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Clabel: 0; (VT) round-off", 'txt:100: expected "Clabel: 0; set: 1; Glabel: 1; <name>"'),
        ("Clabel: 5; set: 1; Glabel: 1; twice", "txt:100: each label of 0 to 98 must occur once, but got 5"),
        ("Clabel: 99; set: 1; Glabel: 1; too many", "txt:100: each label of 0 to 98 must occur once, but got 99"),
    ],
)
def test_a_category_that_is_malformed_double_or_out_of_range_is_named(told, tmp_path, line, message):
    write_lists(tmp_path)
    with (tmp_path / "gym99_categories.txt").open("a") as file:
        file.write(f"\n{line}\n")
    told(read_finegym(tmp_path, dataset="gym99").findings, message)


def test_a_cut_categories_file_is_refused(told, tmp_path):
    write_lists(tmp_path)
    (tmp_path / "gym99_categories.txt").write_text("Clabel: 0; set: 1; Glabel: 1; one\n")
    told(read_finegym(tmp_path, dataset="gym99").findings, "expected 99 categories, got 1; download the file again")


@pytest.mark.parametrize("name", ["gym99_categories.txt", "gym99_train_element_v1.1.txt", "gym99_val_element.txt"])
def test_a_missing_list_is_named_with_the_places_looked_in(told, tmp_path, name):
    write_lists(tmp_path)
    (tmp_path / name).unlink()
    told(read_finegym(tmp_path, dataset="gym99").findings, rf"no .* in .*annotations or .*: expected .*{name}")


def test_a_list_that_is_no_utf8_text_is_refused(told, tmp_path):
    write_lists(tmp_path)
    (tmp_path / "gym99_val_element.txt").write_bytes("b 1".encode("utf-16"))
    told(
        read_finegym(tmp_path, dataset="gym99").findings,
        r"gym99_val_element.txt: expected UTF-8 text; save the file as UTF-8",
    )


def test_a_folder_without_any_list_is_told_all_that_is_missing(told, tmp_path):
    listing = read_finegym(tmp_path, dataset="gym99")
    assert listing.rows == []
    told(listing.findings, r"no (categories|train list|val list) in", times=3)


@pytest.mark.parametrize(
    "name", ["跳馬", "🤸 flip", "a  b, [c] (d)", "\"q\" 'r'", "U+2028 \u2028 x", "a\x0b\x0c\x1c\x85b", "7"]
)
def test_the_label_is_the_last_field_whatever_the_name_holds(tmp_path, name):
    write_lists(tmp_path, train=f"{name} 3\n{name}.2\t4 \t\r\n")
    _, rows, findings = read_finegym(tmp_path, dataset="gym99")
    train = [(row.clip_id, row.label, row.where[-2:]) for row in rows if row.split == "train"]
    assert train == [(name, 3, ":1"), (f"{name}.2", 4, ":2")] and findings[0].level == "fact"


def test_two_classes_may_share_one_text(tmp_path):
    write_lists(tmp_path)
    lines = [f"Clabel: {label}; set: 1; Glabel: {label}; the same" for label in range(99)]
    (tmp_path / "gym99_categories.txt").write_text("\n".join(lines))
    assert read_finegym(tmp_path, dataset="gym99").classes == ("the same",) * 99


def test_which_list_was_read_is_stated(told, tmp_path):
    write_lists(tmp_path)
    told(
        read_finegym(tmp_path, dataset="gym99").findings,
        r"train: 1 rows in .*gym99_train_element_v1.1.txt, published are 20,484 .* or 26,320 \(version 1.1",
        level="fact",
    )


@pytest.mark.parametrize(
    ("dataset", "num_rows", "says"),
    [
        ("gym99", 20_484, r"20,484 rows in .*train.*, as published in version 1.0; the paper's is 1.1\."),
        ("gym288", 29_334, r"29,334 rows in .*train.*, as published in version 1.1\."),
    ],
)
def test_published_numbers_of_rows_are_recognised(told, tmp_path, dataset, num_rows, says):
    write_lists(tmp_path, dataset=dataset, train="a 1\n" * num_rows)
    told(read_finegym(tmp_path, dataset=dataset).findings, says, level="fact")


def test_the_published_numbers_are_the_published_ones():
    train = [PUBLISHED[name]["train"] for name in ("gym99", "gym288")]
    assert train == [{"1.0": 20484, "1.1": 26320}, {"1.0": 22671, "1.1": 29334}]
    assert [list(PUBLISHED[name]["test"].values()) for name in ("gym99", "gym288")] == [[8521], [9646]]


@pytest.mark.parametrize(
    ("clip_id", "video"),
    [
        ("0LtLS9wROrk_E_002407_002435_A_0003_0005", "0LtLS9wROrk"),
        ("a_E_1_2_b-_E_002407_002435_A_0003_0005", "a_E_1_2_b-"),
        ("0LtLS9wROrk_E_002407_002435", "0LtLS9wROrk"),
        ("high_jump_003", None),
    ],
)
def test_the_source_video_is_what_stands_before_the_event(clip_id, video):
    assert video_of(clip_id) == video
