from pathlib import Path

import pytest

from taghead.data.table import read_table
from taghead.errors import InputError

HEADER = "FileName,Class,TotalFrames,ClassEncoded\n"


def write(root: Path, **files: str) -> Path:
    for name, rows in files.items():
        (root / f"{name}.csv").write_bytes((HEADER + rows).encode())
    return root


def test_a_clip_lies_in_the_folder_of_its_class(tmp_path):
    root = write(
        tmp_path, train="a.mp4,high jump,31,1\nb.mp4,abseil,9,0\n", val="c.mp4,abseil,9,0\n", test="d.mp4,abseil,9,0\n"
    )
    classes, rows = read_table(root)
    assert classes == ("abseil", "high jump")
    assert [(row.split, row.path, row.label) for row in rows] == [
        ("train", "high jump/a.mp4", 1),
        ("train", "abseil/b.mp4", 0),
        ("val", "abseil/c.mp4", 0),
        ("test", "abseil/d.mp4", 0),
    ]


def test_without_a_test_table_the_val_table_is_the_evaluation_split(tmp_path):
    rows = read_table(write(tmp_path, train="a.mp4,x,1,0\n", val="b.mp4,x,1,0\n")).rows
    assert [row.split for row in rows] == ["train", "test"]


def test_quotes_byte_order_marks_carriage_returns_and_blanks_parse(tmp_path):
    write(tmp_path, test="b.mp4,x,1,0\n")
    (tmp_path / "train.csv").write_bytes(f'\ufeff{HEADER}"a, b.mp4", "x" ,1, 0 \r\n\r\n'.replace("\n", "\r\n").encode())
    row = read_table(tmp_path).rows[0]
    assert (row.path, row.label) == ("x/a, b.mp4", 0)


def test_lines_that_contradict_each_other_across_files_are_refused(tmp_path):
    root = write(tmp_path, train="a.mp4,x,1,0\n", test="b.mp4,x,1,0\nc.mp4,y,1,0\n")
    with pytest.raises(InputError, match=r"test.csv:3: label 0 must mean one class, but means 'x' and 'y'"):
        read_table(root)


@pytest.mark.parametrize("row", ["a.mp4,x,1,zero", "a.mp4,x,1", ",x,1,0", "a.mp4,,1,0", "a.mp4,x,1,-1"])
def test_a_line_without_file_class_or_label_is_named(tmp_path, row):
    with pytest.raises(InputError, match=r"train.csv:3: expected a FileName, a Class and a whole number"):
        read_table(write(tmp_path, train=f"a.mp4,x,1,0\n{row}\n", test="b.mp4,x,1,0\n"))


def test_a_label_that_no_line_has_is_named(tmp_path):
    with pytest.raises(InputError, match="ClassEncoded must run from 0 without gaps, but no line has 1"):
        read_table(write(tmp_path, train="a.mp4,x,1,0\nb.mp4,y,1,2\n", test="c.mp4,x,1,0\n"))


def test_a_missing_table_or_column_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no training list in .*: expected train.csv"):
        read_table(tmp_path)
    write(tmp_path, train="a.mp4,x,1,0\n")
    with pytest.raises(InputError, match=r"no evaluation list in .*: expected test.csv or val.csv"):
        read_table(tmp_path)
    (tmp_path / "val.csv").write_text("FileName,Class\na.mp4,x\n")
    with pytest.raises(InputError, match=r"val.csv:1: expected a header with .*, but ClassEncoded is missing"):
        read_table(tmp_path)
