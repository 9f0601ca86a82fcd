import os
import shutil
import subprocess
import sys
from pathlib import Path
from unicodedata import normalize

import pytest

from taghead.data.clips import DATASETS, Clip, ClipList, hold_out, read_clips
from taghead.errors import InputError


@pytest.fixture
def haa500(tmp_path: Path) -> Path:
    root = tmp_path / "haa500"
    for name in ("b", "a"):
        (root / "video" / name).mkdir(parents=True)
        for number in range(20):
            (root / "video" / name / f"{name}_{number:03d}.mp4").write_bytes(b"x" * (number + 1))
    return root


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table whose only training clip can be named anew."""
    root = tmp_path / "table"
    (root / "x").mkdir(parents=True)
    (root / "x" / "b.mp4").touch()
    name_training_clip(root, "x", "b.mp4")
    (root / "test.csv").write_text("FileName,Class,TotalFrames,ClassEncoded\nb.mp4,x,1,0\n")
    return root


def name_training_clip(root: Path, folder: str, file: str) -> None:
    (root / "train.csv").write_text(
        f"FileName,Class,TotalFrames,ClassEncoded\n{file},{folder},1,{int(folder != 'x')}\n"
    )


def names(clips: ClipList, split: str) -> list[str]:
    return [clip.id for clip in clips.split(split)]


def test_clips_come_by_split_sorted_by_id_with_their_file_and_label(haa500):
    clips = read_clips("haa500", haa500)
    assert (clips.dataset, clips.classes, clips.missing, clips.has_validation) == ("haa500", ("a", "b"), (), True)
    assert names(clips, "test") == ["a_017", "a_018", "a_019", "b_017", "b_018", "b_019"]
    assert clips.split("val")[1] == Clip("b_016", haa500.resolve() / "video" / "b" / "b_016.mp4", 1, "val")
    assert len(clips.split("train")) == 32 and len(clips.clips) == 40


def test_a_marked_folder_is_synthetic_whatever_it_is_called(haa500):
    assert not read_clips("haa500", haa500).synthetic
    (haa500 / "synthetic.json").write_text('{"synthetic": true, "finished": true}')
    assert read_clips("haa500", haa500).synthetic and read_clips("synthetic", haa500).synthetic


def test_the_fingerprint_does_not_depend_on_place_and_time(haa500, tmp_path):
    first = read_clips("haa500", haa500).fingerprint
    shutil.copytree(haa500, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    os.utime(tmp_path / "elsewhere" / "video" / "a" / "a_000.mp4", (0, 0))
    assert read_clips("haa500", tmp_path / "elsewhere").fingerprint == first
    assert len(first) == 16 and int(first, 16) >= 0


def test_the_fingerprint_tells_a_changed_a_missing_and_a_renamed_clip(haa500):
    seen = {read_clips("haa500", haa500).fingerprint}
    (haa500 / "video" / "a" / "a_003.mp4").write_bytes(b"changed")
    seen.add(read_clips("haa500", haa500).fingerprint)
    (haa500 / "video" / "a" / "a_003.mp4").unlink()
    seen.add(read_clips("haa500", haa500, missing="skip").fingerprint)
    (haa500 / "video" / "b").rename(haa500 / "video" / "c")
    for file in (haa500 / "video" / "c").iterdir():
        file.rename(file.with_name(file.name.replace("b_", "c_")))
    seen.add(read_clips("haa500", haa500, missing="skip").fingerprint)
    assert len(seen) == 4


def test_the_fingerprint_is_the_same_on_every_machine(haa500):
    """A change here gives every stored trial another identity."""
    assert read_clips("haa500", haa500).fingerprint == "d1d965bc06027801"


def test_missing_clips_are_counted_and_named_with_the_remedy(haa500):
    for number in range(5):
        (haa500 / "video" / "a" / f"a_{number:03d}.mp4").unlink()
    with pytest.raises(
        InputError, match=r"5 of 40 clips of haa500 are missing .*\(a_000, .*2, \.\.\.\); .*--missing skip"
    ):
        read_clips("haa500", haa500)
    clips = read_clips("haa500", haa500, missing="skip")
    assert clips.missing == tuple(f"a_{number:03d}" for number in range(5)) and len(clips.clips) == 35


def test_a_split_without_clips_is_refused_even_when_missing_clips_are_skipped(haa500):
    for path in haa500.glob("video/*/*_01[789].mp4"):
        path.unlink()
    with pytest.raises(InputError, match="haa500 has no test clips under"):
        read_clips("haa500", haa500, missing="skip")


def test_what_is_misspelt_is_told_with_the_nearest_name(haa500):
    with pytest.raises(InputError, match=r"no data set 'hah500'; did you mean 'haa500'?"):
        read_clips("hah500", haa500)
    with pytest.raises(InputError, match=r"missing is one of error, skip, but got 'skp'; did you mean 'skip'?"):
        read_clips("haa500", haa500, missing="skp")
    with pytest.raises(InputError, match=r"no split 'tests'; did you mean 'test'?"):
        read_clips("haa500", haa500).split("tests")


@pytest.mark.parametrize("dataset", sorted(DATASETS))
def test_a_data_root_that_is_not_there_is_named(tmp_path, dataset):
    with pytest.raises(InputError, match=r"no such data root: .*nowhere; give the folder that holds"):
        read_clips(dataset, tmp_path / "nowhere")


def test_labels_out_of_range_are_told_with_file_line_and_value(tmp_path):
    lines = [f"Clabel: {label}; set: 1; Glabel: {label}; name {label}" for label in range(99)]
    (tmp_path / "gym99_categories.txt").write_text("\n".join(lines))
    (tmp_path / "gym99_val_element.txt").write_text("b 0\n")
    for label in (99, -1):
        (tmp_path / "gym99_train_element_v1.1.txt").write_text(f"a 98\nb {label}\n")
        with pytest.raises(InputError, match=rf"v1.1.txt:2: 0 <= label < 99 must hold, but got {label}"):
            read_clips("gym99", tmp_path)


def test_gym_has_no_validation_split(tmp_path):
    lines = [f"Clabel: {label}; set: 1; Glabel: {label}; name {label}" for label in range(99)]
    (tmp_path / "gym99_categories.txt").write_text("\n".join(lines))
    (tmp_path / "gym99_val_element.txt").write_text("b 0\n")
    (tmp_path / "gym99_train_element_v1.1.txt").write_text("a 98\n")
    for name in "ab":
        (tmp_path / f"{name}.mp4").touch()
    clips = read_clips("gym99", tmp_path)
    assert not clips.has_validation and clips.split("val") == () and names(clips, "test") == ["b"]


def test_a_clip_that_stands_twice_in_a_split_is_named_with_both_places(table):
    text = (table / "train.csv").read_text()
    (table / "train.csv").write_text(text + "b.mp4,x,1,0\n")
    with pytest.raises(InputError, match=r"train.csv:3: clip 'x/b.mp4' must occur once, but .*train.csv:2 too"):
        read_clips("table", table)


@pytest.mark.parametrize(("folder", "file"), [("..", "out.mp4"), ("x", "../../out.mp4"), ("/etc", "passwd")])
def test_paths_that_leave_the_root_are_refused(table, folder, file):
    (table.parent / "out.mp4").touch()
    name_training_clip(table, folder, file)
    with pytest.raises(InputError, match=r"train.csv:2: clips must lie under the data root .*; move it there"):
        read_clips("table", table, missing="skip")


@pytest.mark.parametrize("folder", [True, False])
def test_links_that_leave_the_root_are_refused(table, folder):
    outside = table.parent / "outside"
    outside.mkdir()
    (outside / "out.mp4").touch()
    if folder:
        (table / "linked").symlink_to(outside)
    else:
        (table / "linked").mkdir()
        (table / "linked" / "out.mp4").symlink_to(outside / "out.mp4")
    (table / "test.csv").write_text("FileName,Class,TotalFrames,ClassEncoded\nb.mp4,x,1,0\n")
    name_training_clip(table, "linked", "out.mp4")
    with pytest.raises(InputError, match=r"'linked/out.mp4' leads to .*outside/out.mp4"):
        read_clips("table", table)


def test_links_within_the_root_and_a_linked_root_are_followed(table):
    (table / "x" / "linked.mp4").symlink_to(table / "x" / "b.mp4")
    name_training_clip(table, "x", "linked.mp4")
    (table.parent / "root").symlink_to(table)
    assert read_clips("table", table.parent / "root").split("train")[0].path == (table / "x" / "b.mp4").resolve()


@pytest.mark.parametrize("file", ["..", ".", "b\0.mp4"])
def test_a_name_that_no_clip_can_have_is_refused(table, file):
    name_training_clip(table, "x", file)
    with pytest.raises(InputError, match=r"train.csv:2: expected the name of a clip, got"):
        read_clips("table", table)


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_file_spelt_in_the_other_unicode_form_is_found(table, forms):
    listed, on_disk = (normalize(form, "zesté") for form in forms)
    (table / "x" / f"{on_disk}.mp4").touch()
    name_training_clip(table, "x", f"{listed}.mp4")
    (clip,) = read_clips("table", table).split("train")
    assert (clip.id, clip.path.name) == (f"x/{listed}.mp4", f"{on_disk}.mp4")


def test_a_clip_in_two_splits_is_named_with_both_places(table):
    name_training_clip(table, "x", "b.mp4")
    (table / "test.csv").write_text((table / "train.csv").read_text())
    with pytest.raises(InputError, match=r"test.csv:2: clip 'x/b.mp4' must be in one split, but .* by .*train.csv:2"):
        read_clips("table", table)


def test_one_based_labels_are_recognised_as_such(table):
    (table / "train.csv").write_text("FileName,Class,ClassEncoded\na.mp4,x,1\nb.mp4,y,2\n")
    (table / "test.csv").write_text("FileName,Class,ClassEncoded\nc.mp4,x,1\n")
    with pytest.raises(InputError, match=r"train.csv:3: 0 <= label < 2 .* got 2, and .* one-based; subtract 1 from"):
        read_clips("table", table)


def test_how_many_clips_of_each_split_are_listed_present_and_missing_is_counted(haa500):
    for name in ("a_000", "a_001", "a_016", "b_019"):
        (haa500 / "video" / name[0] / f"{name}.mp4").unlink()
    clips = read_clips("haa500", haa500, missing="skip")
    assert clips.counts == {"train": (32, 30, 2), "val": (2, 1, 1), "test": (6, 5, 1)}
    assert clips.missing == ("a_000", "a_001", "a_016", "b_019")


def test_the_first_error_is_raised_and_the_others_counted(table):
    (table / "train.csv").write_text("FileName,Class,ClassEncoded\nno label,x\nb.mp4,x,0\nb.mp4,x,0\n")
    with pytest.raises(InputError, match=r"train.csv:2: expected .* One of 3 errors: taghead datasets check names all"):
        read_clips("table", table)


def test_a_folder_is_no_clip(table):
    (table / "x" / "folder.mp4").mkdir()
    name_training_clip(table, "x", "folder.mp4")
    with pytest.raises(InputError, match="1 of 2 clips of table are missing"):
        read_clips("table", table)


def test_a_clip_that_goes_after_listing_is_told_when_identity_is_asked_for(haa500):
    clips = read_clips("haa500", haa500)
    (haa500 / "video" / "a" / "a_000.mp4").unlink()
    with pytest.raises(InputError, match=r"a_000.mp4 has gone since it was listed"):
        _ = clips.fingerprint


def test_listing_clips_loads_neither_torch_nor_a_decoder():
    code = "import sys, taghead.data.clips; print([name for name in ('torch', 'av', 'numpy') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.fixture
def unvalidated(haa500):
    """Two classes of 16 training clips, and no validation split."""
    for path in haa500.glob("video/*/*_016.mp4"):
        path.unlink()
    return read_clips("haa500", haa500, missing="skip")


@pytest.mark.parametrize(("fraction", "of_each_class"), [(0.1, 2), (0.25, 4), (0.5, 8), (0.99, 15)])
def test_the_fraction_of_each_class_is_held_out_and_a_clip_stays(unvalidated, fraction, of_each_class):
    clips = hold_out(unvalidated, fraction)
    for label in (0, 1):
        val, train = (sum(clip.label == label for clip in clips.split(split)) for split in ("val", "train"))
        assert (val, train) == (of_each_class, 16 - of_each_class)
    assert clips.has_validation and not unvalidated.has_validation
    assert clips.split("test") == unvalidated.split("test")
    assert sorted(clips.split("train") + clips.split("val"), key=lambda clip: clip.id) == list(
        unvalidated.split("train")
    )


def test_what_is_held_out_goes_by_the_ids_alone_and_grows_with_the_fraction(unvalidated):
    smaller, larger = (set(names(hold_out(unvalidated, fraction), "val")) for fraction in (0.2, 0.5))
    assert smaller < larger
    turned = ClipList("haa500", ("a", "b"), unvalidated.clips[::-1], unvalidated.root, False)
    assert hold_out(turned, 0.2).held_out == smaller
    # another choice would give stored trials other training clips under their old ids
    assert smaller == {"a_000", "a_004", "a_014", "b_003", "b_008", "b_013"}


def test_a_class_with_one_clip_keeps_it_in_training(unvalidated):
    few = tuple(clip for clip in unvalidated.clips if clip.label == 0 or clip.split == "test" or clip.id == "b_000")
    clips = hold_out(ClipList("haa500", ("a", "b"), few, unvalidated.root, False), 0.9)
    assert "b_000" in names(clips, "train") and len(clips.split("val")) == 14


def test_holding_out_leaves_the_fingerprint_and_counts_its_clips(unvalidated):
    clips = hold_out(unvalidated, 0.25)
    assert clips.fingerprint == unvalidated.fingerprint
    assert (clips.counts["train"], clips.counts["val"]) == ((24, 24, 0), (10, 8, 2))


def test_holding_nothing_out_changes_nothing(haa500):
    clips = read_clips("haa500", haa500)
    assert hold_out(clips, 0.0) is clips


def test_holding_out_is_refused_where_there_is_a_validation_split(haa500):
    with pytest.raises(InputError, match=r"haa500 has one of its own \(2 clips\) and data.holdout=0.1: use that one"):
        hold_out(read_clips("haa500", haa500), 0.1)


def test_holding_out_less_than_a_clip_of_any_class_is_refused(unvalidated):
    with pytest.raises(InputError, match=r"data.holdout=0.01 holds out no clip of haa500, .* at the most 16 training"):
        hold_out(unvalidated, 0.01)
