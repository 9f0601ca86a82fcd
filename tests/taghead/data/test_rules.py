from hypothesis import given
from hypothesis import strategies as st

from taghead.data.listing import SPLITS, Row
from taghead.data.rules import check_rows


def rows(*given: tuple[str, str, int]) -> list[Row]:
    return [
        Row(split, clip_id, label, f"{clip_id}.mp4", f"{split}.txt:{number}")  # type: ignore[arg-type]
        for number, (split, clip_id, label) in enumerate(given, start=1)
    ]


def of(*given: tuple[str, str, int], num_classes: int = 3) -> list[tuple[str, str]]:
    found = check_rows(rows(*given), num_classes=num_classes)
    assert {finding.level for finding in found} <= {"error"}
    return [(finding.rule, finding.message.split(": ")[0]) for finding in found]


def test_sound_rows_give_no_finding():
    assert of(("train", "a", 0), ("train", "b", 2), ("test", "c", 1)) == []
    assert of() == []


def test_every_label_out_of_range_is_told_with_its_line():
    assert of(("train", "a", 0), ("train", "b", 3), ("train", "c", -1)) == [
        ("label", "train.txt:2"),
        ("label", "train.txt:3"),
    ]


def test_a_list_is_one_based_when_it_has_the_number_of_classes_and_no_zero():
    assert of(("train", "a", 1), ("train", "b", 3), ("test", "c", 0)) == [("one-based labels", "train.txt:2")]
    assert of(("train", "a", 1), ("train", "b", 2)) == []  # a list without class 0 may be just that
    assert of(("train", "a", 1), ("train", "b", 4)) == [("label", "train.txt:2")]


def test_each_list_is_looked_at_for_itself():
    both = of(("train", "a", 1), ("train", "b", 3), ("test", "c", 3), ("test", "d", 2))
    assert both == [("one-based labels", "train.txt:2"), ("one-based labels", "test.txt:3")]


def test_a_clip_that_stands_again_is_told_each_time_by_the_split_it_stands_in_first():
    again = of(("train", "a", 0), ("train", "a", 0), ("val", "a", 0), ("test", "b", 1), ("train", "b", 1))
    assert again == [("twice", "train.txt:2"), ("two splits", "val.txt:3"), ("two splits", "train.txt:5")]


@given(st.lists(st.tuples(st.sampled_from(SPLITS), st.sampled_from("abcdef"), st.integers(-1, 3))))
def test_rows_are_sound_just_when_labels_are_in_range_and_ids_differ(given):
    ids = [clip_id for _, clip_id, _ in given]
    sound = all(0 <= label < 3 for _, _, label in given) and len(set(ids)) == len(ids)
    assert (of(*sorted(given)) == []) == sound
