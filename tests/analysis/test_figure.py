"""How figures are saved."""

from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from analysis.figure import COLUMN, new_figure, save, stamp, styled, to_bytes, undrawn
from analysis.formats import SYNTHETIC


@styled
def drawn() -> Figure:
    figure, (axis,) = new_figure(COLUMN, 2.0)
    axis.plot([0, 1], [0, 1], label="a line")
    axis.legend()
    return figure


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_the_same_figure_has_the_same_bytes(kind: str) -> None:
    assert to_bytes(drawn(), kind) == to_bytes(drawn(), kind)


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_no_date_and_no_version_is_in_a_file(kind: str) -> None:
    content = to_bytes(drawn(), kind)
    assert b"Date" not in content
    assert b"Matplotlib v" not in content


def test_pdf_embeds_its_fonts_as_truetype() -> None:
    content = to_bytes(drawn(), "pdf")
    assert b"/FontFile2" in content
    assert b"/Type3" not in content


def test_drawing_leaves_the_users_own_settings_alone() -> None:
    before = dict(mpl.rcParams)
    to_bytes(drawn(), "png")
    assert dict(mpl.rcParams) == before


def test_a_stamp_is_there_for_synthetic_data_only() -> None:
    assert stamp(drawn(), synthetic=True).get_suptitle() == SYNTHETIC
    assert stamp(drawn(), synthetic=False).get_suptitle() == ""


def test_saving_makes_the_folder_and_one_file_a_kind(tmp_path: Path) -> None:
    paths = save(drawn(), tmp_path / "new" / "folder", "line", kinds=("png", "pdf"))
    assert [path.name for path in paths] == ["line.png", "line.pdf"]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ["line.pdf", "line.png"]


@styled
def labelled(label: str) -> Figure:
    figure, (axis,) = new_figure(COLUMN, 2.0)
    axis.plot([0, 1], [0, 1], label=label)
    axis.set_title(label)
    axis.legend()
    return figure


def test_a_dollar_in_a_label_is_a_dollar() -> None:
    # as mathematics the first would not parse
    assert to_bytes(labelled("$\\no{$"), "png")
    assert to_bytes(labelled("$a$"), "png") != to_bytes(labelled("a"), "png")
    assert not labelled("$a$").axes[0].title.get_parse_math()


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_letters_that_the_font_lacks_are_told_and_stop_nothing(kind: str) -> None:
    figure = labelled("\u4f53\u64cd full")
    assert undrawn(figure) == "\u4f53\u64cd"
    assert to_bytes(figure, kind)
    assert undrawn(drawn()) == ""
