import pytest

from taghead.files import hidden_beside, remove_leftovers, write_text, written_whole


def test_two_writers_of_one_process_id_each_have_a_file_of_their_own(tmp_path):
    path = tmp_path / "plan.json"
    with written_whole(path) as first:
        with written_whole(path) as second:  # as in another container, where the driver has process id 1 too
            first.write_text("half of the fir")
            second.write_text("second")
        assert path.read_text() == "second"
        first.write_text("first")
    assert path.read_text() == "first"
    assert [file.name for file in tmp_path.iterdir()] == ["plan.json"]


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    write_text(tmp_path / "plan.json", "old")
    with pytest.raises(RuntimeError), written_whole(tmp_path / "plan.json") as beside:
        beside.write_text("half of the n")
        raise RuntimeError
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"plan.json": "old"}


def test_what_killed_writers_left_is_removed_whichever_version_wrote_it_and_nothing_else(tmp_path):
    hidden_beside(tmp_path / "checkpoint.pt").write_text("half of it")
    (tmp_path / ".checkpoint.pt.123").write_text("of an older version")
    for name in (".hidden.txt", "checkpoint.pt", "checkpoint.123"):
        (tmp_path / name).write_text("whole")
    remove_leftovers(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {".hidden.txt", "checkpoint.pt", "checkpoint.123"}
