"""One table, four formats."""

import io
from html.parser import HTMLParser

import pandas as pd
import pytest

from analysis.formats import FORMATS, SYNTHETIC, Table, latex_text, to_csv, to_html, to_latex, to_markdown

NASTY = r"<script>alert(1)</script> & 50 % of $x_1$ #1 {a} ~ ^ \end{table} | `b`"


def table(*, synthetic: bool = False, label: str = "Full") -> Table:
    data = pd.DataFrame({"row": [label], "mean": [86.123456789]})
    return Table("demo", "A title", ("", "Top-1"), ((label, "86.1 ± 0.2 (3)"),), data, ("A note",), synthetic)


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_every_format_says_that_data_is_synthetic(kind: str) -> None:
    stamp = "True" if kind == "csv" else SYNTHETIC
    assert stamp in FORMATS[kind](table(synthetic=True))
    assert stamp not in FORMATS[kind](table())


@pytest.mark.parametrize("kind", ["md", "tex", "html"])
def test_every_format_for_people_holds_caption_cells_and_notes(kind: str) -> None:
    text = FORMATS[kind](table())
    assert all(part in text for part in ("A title", "Top-1", "Full", "86.1", "A note"))


def test_csv_holds_the_unrounded_numbers() -> None:
    read = pd.read_csv(io.StringIO(to_csv(table())))
    assert read.loc[0, "mean"] == 86.123456789


def test_latex_is_a_booktabs_table_with_a_column_for_each_head() -> None:
    text = to_latex(table())
    assert r"\begin{tabular}{lr}" in text
    assert [text.count(rf"\{rule}") for rule in ("toprule", "midrule", "bottomrule")] == [1, 1, 1]
    assert r"Full & 86.1 $\pm$ 0.2 (3) \\" in text


def test_latex_escapes_every_special_character() -> None:
    plain = latex_text(NASTY)
    for word in (
        r"\textbackslash{}",
        r"\textless{}",
        r"\textgreater{}",
        r"\textasciitilde{}",
        r"\textasciicircum{}",
        r"\textbar{}",
    ):
        plain = plain.replace(word, "")
    for character in "&%$#_{}":
        plain = plain.replace(f"\\{character}", "")
    assert not set(plain) & set(r"\&%$#_{}~^<>|")


def test_html_shows_a_label_as_text_and_runs_none_of_it() -> None:
    seen: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.append(tag)

        def handle_data(self, data: str) -> None:
            seen.append(data)

    Reader().feed(to_html(table(label=NASTY)))
    assert "script" not in seen
    assert NASTY in seen


def test_markdown_keeps_a_bar_in_a_label_inside_its_cell() -> None:
    line = next(line for line in to_markdown(table(label="a|b")).splitlines() if "86.1" in line)
    assert line.startswith(r"| a\|b |")
