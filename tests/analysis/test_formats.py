"""One table, four formats."""

# ruff: noqa: RUF001  signs that look alike are told apart here

import io
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from analysis.formats import (
    FORMATS,
    LATEX_ROWS,
    NOTES_SHOWN,
    SYNTHETIC,
    Table,
    latex_text,
    to_csv,
    to_html,
    to_latex,
    to_markdown,
)  # fmt: skip

NASTY = r"<script>alert(1)</script> & 50 % of $x_1$ #1 {a} ~ ^ \end{table} | `b` * _c_ [d](e) &amp; ~~f~~ \\"
SIGNS = "± Δ − ≤ ≥ × · √ ü é ß Å α Ω — – … † ‡ ≈ = * ² ₃ ½ ° “q” \N{CJK UNIFIED IDEOGRAPH-4F53} --seeds \N{BELL}"
NUMBERS = (
    "86.1 ± 0.2 (3)",
    "−2.3 [−12.3, +7.6]",
    "440,488",
    "< 0.001",
    "+24.5†",
    "1.5²",
    "−2.3*",
    "1e-05",
    "12 (best)",
)


def table(*, synthetic: bool = False, label: str = "Full", cell: str = "86.1 ± 0.2 (3)", **facts: str) -> Table:
    data = pd.DataFrame({"row": [label], "mean": [86.123456789]})
    return Table("demo", "A title", ("", "Top-1"), ((label, cell),), data, ("A note",), synthetic, **facts)


def of_rows(*rows: tuple[str, ...], notes: tuple[str, ...] = ()) -> Table:
    return Table("demo", "A title", ("", *"abcdefgh"[: len(rows[0]) - 1]), rows, pd.DataFrame(), notes)


class Texts(HTMLParser):
    """The tags of a page, and its texts."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_every_format_says_that_data_is_synthetic(kind: str) -> None:
    stamp = "True" if kind == "csv" else SYNTHETIC
    assert stamp in FORMATS[kind](table(synthetic=True))
    assert stamp not in FORMATS[kind](table())


@pytest.mark.parametrize("kind", ["md", "tex", "html"])
def test_every_format_for_people_holds_caption_cells_and_notes(kind: str) -> None:
    text = FORMATS[kind](table())
    assert all(part in text for part in ("A title", "Top-1", "Full", "86.1", "A note"))


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_a_table_without_rows_is_printed(kind: str) -> None:
    assert FORMATS[kind](replace(table(), rows=(), notes=()))


def test_csv_holds_the_unrounded_numbers() -> None:
    read = pd.read_csv(io.StringIO(to_csv(table())))
    assert read.loc[0, "mean"] == 86.123456789


@pytest.mark.parametrize("cell", NUMBERS)
def test_a_column_with_a_number_stands_to_the_right(cell: str) -> None:
    assert of_rows(("a", "-"), ("b", cell)).is_text == (True, False)


@pytest.mark.parametrize("cell", ["7715f00", "-", "base", "pending 3/3", "3D", "1.5x", "", "R(2+1)D"])
def test_a_column_without_a_number_stands_to_the_left(cell: str) -> None:
    assert of_rows(("a", cell)).is_text == (True, True)


# LaTeX


def test_latex_is_a_booktabs_table_with_a_column_for_each_head() -> None:
    text = to_latex(table())
    assert r"\begin{tabular}{lr}" in text
    assert [text.count(rf"\{rule}") for rule in ("toprule", "midrule", "bottomrule")] == [1, 1, 1]
    assert r"Full & 86.1 $\pm$ 0.2 (3) \\" in text


COMMAND = r"\\(?:[a-zA-Z]+|[^a-zA-Z])"
LATEX = re.compile(rf"(?:{COMMAND}|\$(?:{COMMAND}|[-{{}}^])+\$|[^\\$&%#_~^<>|\"])*")


def is_safe(text: str) -> bool:
    """Whether LaTeX reads a text as a text: every special character is part of a command, every brace has its other."""
    braces = re.findall("[{}]", re.sub(r"\\[{}]", "", text))
    depths = [braces[:end].count("{") - braces[:end].count("}") for end in range(len(braces) + 1)]
    return text.isascii() and LATEX.fullmatch(text) is not None and min(depths) == 0 == depths[-1]


@pytest.mark.parametrize("text", [*'&%$#_{}~^<>|"\\α', "50%", "a_b", "$x$ & y"])
def test_the_check_of_latex_fails_on_what_is_not_escaped(text: str) -> None:
    assert not is_safe(text)
    assert is_safe(latex_text(text))


@given(st.text() | st.text("\\{}$&%#_~^<>|\"`'-,* ±Δ−é"))
def test_any_text_is_safe_in_latex(text: str) -> None:
    assert is_safe(latex_text(text).replace("~", " "))  # which stands for a space that does not break


def test_latex_prints_signs_by_their_commands_and_names_what_it_has_no_command_for() -> None:
    assert latex_text("−2.3† ≈ α·10⁻² é") == r"$-$2.3\dag{} $\approx$ $\alpha$$\cdot$10\textsuperscript{$-$}" + (
        r"\textsuperscript{2} \'{e}"
    )
    assert latex_text("\N{CJK UNIFIED IDEOGRAPH-4F53}") == "[U+4F53]"


def test_two_hyphens_stay_two_and_accents_are_one_character_either_way() -> None:
    assert latex_text("--seeds") == "-{}-seeds"
    assert latex_text("u\N{COMBINING DIAERESIS}") == latex_text("ü") == r"\"{u}"


@pytest.mark.parametrize("label", ["[a]", "*"])
def test_a_row_that_begins_like_an_option_is_not_taken_for_one(label: str) -> None:
    assert f"{{}}{label} & " in to_latex(table(label=label))


def test_a_long_table_goes_on_under_one_number_with_its_notes_at_the_end() -> None:
    text = to_latex(of_rows(*((f"row {number}", "1") for number in range(LATEX_ROWS + 1)), notes=("A note",)))
    assert text.count(r"\begin{table}") == text.count(r"\toprule") == 2
    assert text.count(r"\label") == text.count(r"\addtocounter{table}{-1}") == text.count("A note") == 1
    assert "(1 of 2)" in text


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex")
@pytest.mark.parametrize("encoding", ["OT1", "T1"])
def test_pdflatex_prints_any_table_on_its_page(encoding: str, tmp_path: Path) -> None:
    if subprocess.run(["kpsewhich", "booktabs.sty", "graphicx.sty"], capture_output=True).returncode:
        pytest.skip("no booktabs or graphicx")
    hostile = f"{NASTY} {SIGNS}"
    made = [
        table(synthetic=True),
        replace(table(label=hostile, cell=hostile), title=hostile, name=NASTY, header=(hostile, "[x]")),
        replace(table(), notes=(hostile,)),
        of_rows(("[a]", "[−2.3, +1]", "*"), ("*", "1†", "="), ("", "", "")),
        of_rows(*(("label", *["86.1 ± 0.2 (3)"] * 8) for _ in range(3)), notes=("note " * 100,)),
        of_rows(*((f"row {number}", "86.1 ± 0.2 (3)") for number in range(100)), notes=("A note. " * 20,) * 10),
        replace(table(), rows=()),
    ]  # fmt: skip
    packages = rf"\usepackage[{encoding}]{{fontenc}}\usepackage{{booktabs,graphicx}}"
    body = r"\clearpage ".join(map(to_latex, made))
    source = rf"\documentclass{{article}}{packages}\begin{{document}}{body}\end{{document}}"
    (tmp_path / "all.tex").write_text(source, encoding="ascii")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "all.tex"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert result.returncode == 0, result.stdout[-2000:]
    assert not re.findall(r"Overfull \\hbox.*|.*Missing character.*|.*too large.*", result.stdout)


# HTML


def test_html_shows_a_label_as_text_and_runs_none_of_it() -> None:
    page = Texts(to_html(replace(table(label=NASTY, cell=NASTY), header=(NASTY, NASTY), notes=(NASTY,))))
    assert "script" not in page.tags
    assert page.texts.count(NASTY) == 4
    assert "".join(page.texts).count(NASTY.replace("; ", ";")) == 1


def test_a_cell_breaks_after_a_semicolon_and_nowhere_else() -> None:
    assert "<td>86.1 &amp; &lt;b&gt;;<br>pending 2/3</td>" in to_html(table(cell="86.1 & <b>; pending 2/3"))


def test_html_has_a_caption_and_says_of_which_row_or_column_each_head_is() -> None:
    text = to_html(table())
    assert "<caption><span>A title.</span></caption>" in text
    assert text.count('<th scope="col"') == 2
    assert text.count('<th scope="row"') == 1
    assert '<th scope="col" class="text"><span class="unseen">row</span></th>' in text  # a head without a text


def test_the_base_row_is_set_apart_and_counts_as_no_difference() -> None:
    text = to_html(replace(of_rows(("B", "base", "70"), ("Full", "−6.0", "64")), base_row="B"))
    assert text.count('<tr class="base">') == 1
    assert '<tr class="base"><th scope="row">B</th><td data-sort="0">base</td>' in text
    assert "data-sort" not in to_html(of_rows(("B", "base")))


def test_many_notes_are_folded_but_for_the_first() -> None:
    notes = tuple(f"Note {number}." for number in range(NOTES_SHOWN + 3))
    text = to_html(replace(table(), notes=notes))
    assert "<summary>3 more notes</summary>" in text
    assert text.index(notes[NOTES_SHOWN - 1]) < text.index("<details>") < text.index(notes[NOTES_SHOWN])
    assert "<details>" not in to_html(replace(table(), notes=notes[:-1]))


# Markdown


def rendered(text: str) -> list[str]:
    return Texts(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)).texts


def squeezed(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(
    "text", [NASTY, SIGNS, "a|b", "a\\|b", "*", "**", "a*b*c", "_a_b_", "x\ny", "&lt;", "a\\", "= =="]
)
def test_markdown_is_read_as_the_same_texts(text: str) -> None:
    given_table = replace(
        table(label=text, cell=f"1 {text}"), title=text, header=("", f"{text} %"), notes=(f"n {text}",)
    )
    read = squeezed(" ".join(rendered(to_markdown(given_table))))
    assert read == squeezed(f"{text}. {text} % {text} 1 {text} n {text}")


@given(st.text("ab_*|\\`[]()<>~&;#+-=.!:1 "))
def test_any_label_is_read_as_the_same_text_in_markdown(text: str) -> None:
    texts = rendered(to_markdown(table(label=f"x{text}y")))
    assert squeezed(f"x{text}y") in map(squeezed, texts)


@pytest.mark.parametrize("note", ["# a", "- a", "+ a", "1. a", "2) a", "> a", "* a"])
def test_a_note_that_begins_like_a_list_or_a_heading_stays_a_note(note: str) -> None:
    assert note in rendered(to_markdown(replace(table(), notes=(note,))))


def test_markdown_columns_are_aligned_but_for_long_cells() -> None:
    lines = to_markdown(of_rows(("a", "1"), ("b + c", "−10.5"))).splitlines()[2:6]
    assert lines == ["|       |     a |", "| :---- | ----: |", "| a     |     1 |", "| b + c | −10.5 |"]
    long = to_markdown(of_rows(("a", "x" * 100), ("b", "y"))).splitlines()
    assert long[-1] == "| b   | y   |"
