from pathlib import Path
from unicodedata import normalize

import pytest

from taghead.data.table import read_table

HEADER = "FileName,Class,TotalFrames,ClassEncoded\n"


def write(root: Path, **files: str) -> Path:
    for name, rows in files.items():
        (root / f"{name}.csv").write_bytes((HEADER + rows).encode())
    return root


def test_a_clip_lies_in_the_folder_of_its_class(tmp_path):
    root = write(
        tmp_path, train="a.mp4,high jump,31,1\nb.mp4,abseil,9,0\n", val="c.mp4,abseil,9,0\n", test="d.mp4,abseil,9,0\n"
    )
    classes, rows, findings = read_table(root)
    assert (classes, findings) == (("abseil", "high jump"), [])
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


def test_lines_that_contradict_each_other_across_files_are_refused(told, tmp_path):
    root = write(tmp_path, train="a.mp4,x,1,0\n", test="b.mp4,x,1,0\nc.mp4,y,1,0\n")
    told(read_table(root).findings, r"test.csv:3: label 0 must mean one class, but means 'x' and 'y'")


@pytest.mark.parametrize("name", ["dive", normalize("NFD", "zesté")])
def test_a_class_with_two_labels_is_named_and_makes_no_class_more(told, tmp_path, name):
    known = normalize("NFC", name)
    rows = f"a.mp4,{known},1,0\nb.mp4,x,1,1\nc.mp4,y,1,2\nd.mp4,{name},1,3\n"
    listing = read_table(write(tmp_path, train=rows, test=f"e.mp4,{known},1,0\nf.mp4,{name},1,3\n"))
    assert listing.classes == (known, "x", "y")
    assert [row.clip_id for row in listing.rows] == [f"{known}/a.mp4", "x/b.mp4", "y/c.mp4", f"{known}/e.mp4"]
    for where in ("train.csv:5", "test.csv:3"):
        told(listing.findings, rf"{where}: class {name!r} must have one label, but has 0 and 3")


@pytest.mark.parametrize("row", ["a.mp4,x,1,zero", "a.mp4,x,1", ",x,1,0", "a.mp4,,1,0", "a.mp4,x,1,-1"])
def test_a_line_without_file_class_or_label_is_named(told, tmp_path, row):
    told(
        read_table(write(tmp_path, train=f"a.mp4,x,1,0\n{row}\n", test="b.mp4,x,1,0\n")).findings,
        r"train.csv:3: expected a FileName, a Class and a whole number",
    )


def test_a_label_that_no_line_has_is_named(told, tmp_path):
    told(
        read_table(write(tmp_path, train="a.mp4,x,1,0\nb.mp4,y,1,2\n", test="c.mp4,x,1,0\n")).findings,
        "ClassEncoded must run from 0 without gaps, but no line has 1",
    )


def test_a_missing_table_or_column_is_named(told, tmp_path):
    told(read_table(tmp_path).findings, r"no training list in .*: expected train.csv")
    write(tmp_path, train="a.mp4,x,1,0\n")
    told(read_table(tmp_path).findings, r"no evaluation list in .*: expected test.csv or val.csv")
    (tmp_path / "val.csv").write_text("FileName,Class\na.mp4,x\n")
    told(read_table(tmp_path).findings, r"val.csv:1: expected a header with .*, but ClassEncoded is missing")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_may_be_parted_by_commas_semicolons_or_tabs_in_any_order(tmp_path, delimiter):
    lines = ["ClassEncoded,Note,FileName,Class", "0,,a.mp4,x"]
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_text("\n".join(lines).replace(",", delimiter))
    _, rows, findings = read_table(tmp_path)
    assert [row.path for row in rows] == ["x/a.mp4", "x/a.mp4"] and findings == []


@pytest.mark.parametrize(
    "name", ["跳馬", "🤸 flip", "(a) [b] {c}", 'say "hi"', "a, b", "a; b", "U+2028 \u2028 x", "\x0b\x0c|"]
)
def test_names_of_any_script_and_with_any_sign_parse(tmp_path, name):
    quoted = '"' + name.replace('"', '""') + '"'
    write(tmp_path, train=f"{quoted},{quoted},1,0\n", test=f"t.mp4,{quoted},1,0\n")
    classes, rows, findings = read_table(tmp_path)
    assert classes == (name,) and findings == []
    assert [(row.path, row.where) for row in rows] == [
        (f"{name}/{name}", f"{tmp_path}/train.csv:2"),
        (f"{name}/t.mp4", f"{tmp_path}/test.csv:2"),
    ]


def test_all_broken_lines_are_told_and_the_others_read(told, tmp_path):
    rows = "a.mp4,x,1,zero\nb.mp4,x,1,0\nc, d.mp4,x,1,0\n" + '"e.mp4,x,1,0\nf.mp4,x,1,0\n'
    listing = read_table(write(tmp_path, train=rows, test="g.mp4,x,1,0\n"))
    assert [row.clip_id for row in listing.rows] == ["x/b.mp4", "x/g.mp4"]
    told(listing.findings, r"train.csv:2: expected a FileName")
    told(listing.findings, r"train.csv:4: more fields than the header has; put names that hold a comma into quotes")
    told(listing.findings, r"train.csv:5: a name must stand in one line, but a quote is not closed in it")


def test_a_class_may_be_spelt_in_either_unicode_form(tmp_path):
    composed, decomposed = (normalize(form, "zesté") for form in ("NFC", "NFD"))
    listing = read_table(write(tmp_path, train=f"a.mp4,{composed},1,0\n", test=f"b.mp4,{decomposed},1,0\n"))
    assert listing.classes == (composed,) and listing.findings == []


def test_labels_from_one_are_left_to_the_rule_that_knows_them(tmp_path):
    listing = read_table(write(tmp_path, train="a.mp4,x,1,1\nb.mp4,y,1,2\n", test="c.mp4,x,1,1\n"))
    assert listing.classes == ("x", "y") and listing.findings == []
