"""Where results are written."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.places import make_folder, slug
from taghead.errors import InputError


def test_letters_digits_and_three_signs_stay_in_a_file_name() -> None:
    assert slug("haa500-v1.2_x") == "haa500-v1.2_x"
    assert slug("../a b:c") == ".._a_b_c"


@given(st.text(min_size=1))
def test_no_label_leaves_its_folder(label: str) -> None:
    assert Path(f"study_{slug(label)}_tsne").parent == Path()


def test_a_file_in_the_way_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=r"no folder to write to .* give another --out"):
            make_folder(folder)
