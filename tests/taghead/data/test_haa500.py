import json
from pathlib import Path
from unicodedata import normalize

import pytest

from taghead.data.haa500 import read_haa500, read_synthetic, split_of
from taghead.errors import InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("yoga tree", "Push-up", "abseil_"):
        (tmp_path / "video" / name).mkdir(parents=True)
        (tmp_path / "video" / name / f"{name}_000.mp4").touch()
    return tmp_path


def test_clips_0_to_15_train_16_validates_and_17_to_19_test():
    assert [split_of(number) for number in range(20)] == ["train"] * 16 + ["val"] + ["test"] * 3


def test_generated_data_with_more_clips_goes_on_in_twenties():
    assert [split_of(number) for number in range(40, 60)] == [split_of(number) for number in range(20)]


def test_classes_are_the_folders_in_ascii_order(root):
    assert read_haa500(root).classes == ("Push-up", "abseil_", "yoga tree")


def test_every_class_has_twenty_clips_whether_they_are_there_or_not(root):
    rows = read_haa500(root).rows
    assert len(rows) == 60 and len({row.clip_id for row in rows}) == 60
    assert rows[20][:4] == ("train", "abseil__000", 1, "video/abseil_/abseil__000.mp4")
    assert rows[39][:4] == ("test", "abseil__019", 1, "video/abseil_/abseil__019.mp4")


def test_the_highest_number_of_any_class_tells_how_many_twenties_there_are(root):
    (root / "video" / "abseil_" / "abseil__025.mp4").touch()
    assert len(read_haa500(root).rows) == 3 * 40


def test_files_that_are_no_clips_are_passed_over(root):
    (root / "video" / ".cache").mkdir()
    (root / "video" / "notes.txt").touch()
    (root / "video" / "abseil_" / "._abseil__000.mp4").touch()
    (root / "video" / "abseil_" / "Thumbs.db").touch()
    assert len(read_haa500(root).rows) == 60


@pytest.mark.parametrize("name", ["abseil_000.mp4", "abseil__1.mp4", "abseil__0001.mp4", "push_000.mp4"])
def test_a_clip_with_another_name_is_refused(told, root, name):
    (root / "video" / "abseil_" / name).touch()
    told(read_haa500(root).findings, f"{name}: expected abseil__NNN.mp4 with three digits; rename or remove it")


def test_a_root_without_videos_says_what_is_expected(tmp_path):
    with pytest.raises(InputError, match=r"no folder .*video: expected video/<class>/<class>_000.mp4; give"):
        read_haa500(tmp_path)
    (tmp_path / "video").mkdir()
    with pytest.raises(InputError, match=r"video holds no class folders"):
        read_haa500(tmp_path)


def test_generated_data_must_say_so_and_be_finished(root):
    with pytest.raises(InputError, match=r"holds no synthetic.json: it was not generated"):
        read_synthetic(root)
    marker = root / "synthetic.json"
    marker.write_text(json.dumps({"synthetic": True, "finished": False}))
    with pytest.raises(InputError, match="only half generated; generate it again"):
        read_synthetic(root)
    marker.write_text("[]")
    with pytest.raises(InputError, match=r"synthetic.json: expected a JSON object"):
        read_synthetic(root)
    marker.write_text(json.dumps({"synthetic": True, "finished": True}))
    assert read_synthetic(root)[:2] == read_haa500(root)[:2]


def test_how_many_classes_there_are_is_held_against_the_published_number(told, root):
    told(read_haa500(root).findings, r"3 class folders in .*video, HAA500 has 500", level="fact")


def test_a_folder_and_its_clips_may_be_spelt_in_either_unicode_form(root):
    composed, decomposed = (normalize(form, "zesté") for form in ("NFC", "NFD"))
    (root / "video" / decomposed).mkdir()
    (root / "video" / decomposed / f"{composed}_000.mp4").touch()
    classes, rows, findings = read_haa500(root)
    assert classes[-1] == composed and rows[60].clip_id == f"{composed}_000"
    assert not [finding for finding in findings if finding.level == "error"]
