"""One table of cells, printed as Markdown, CSV, LaTeX (booktabs) or HTML.

Every text may hold anything: each format escapes what it would read as its own.
"""

# ruff: noqa: RUF001  signs that look alike are told apart here

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup

SYNTHETIC = "SYNTHETIC DATA: generated clips, not those of the paper."
MINUS = "\N{MINUS SIGN}"
LATEX_ROWS = 30  # of a table on one page; a longer one goes on under the same number
NOTES_SHOWN = 6  # in HTML, where there are more than two others, which are folded
LONG_CELL = 40  # characters; in HTML it may break, in Markdown it widens no other

# a cell that a reader takes for a number: 86.1 ± 0.2 (3), −2.3 [−12.3, +7.6], 440,488, < 0.001; but not 7715f00
_NUMBER = re.compile(rf"[<>≤≥≈~=\s]*[+\-{MINUS}]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?(?![A-Za-z0-9_.])")


def _pairs(words: str, shape: str) -> dict[str, str]:
    """Signs, each before the name of its LaTeX command; ``shape`` is what is printed of a name."""
    listed = words.split()
    return {sign: shape.format(name) for sign, name in zip(listed[::2], listed[1::2], strict=True)}


_LATEX = {
    **_pairs("{ { } } $ $ & & % % # # _ _", r"\{}"),
    **_pairs(r"\ backslash ~ asciitilde ^ asciicircum < less > greater | bar", r"\text{}{{}}"),
    **_pairs("` ` † dag ‡ ddag … dots § S ¶ P £ pounds © copyright", r"\{}{{}}"),
    **_pairs("ß ss æ ae Æ AE œ oe Œ OE ø o Ø O ł l Ł L ı i", r"\{}{{}}"),
    **_pairs("α alpha β beta γ gamma δ delta ε varepsilon ϵ epsilon ζ zeta η eta θ theta ι iota κ kappa", r"$\{}$"),
    **_pairs("λ lambda μ mu ν nu ξ xi π pi ρ rho ς varsigma σ sigma τ tau υ upsilon φ varphi ϕ phi", r"$\{}$"),
    **_pairs("χ chi ψ psi ω omega Γ Gamma Δ Delta ∆ Delta Θ Theta Λ Lambda Ξ Xi Π Pi Σ Sigma", r"$\{}$"),
    **_pairs("Υ Upsilon Φ Phi Ψ Psi Ω Omega", r"$\{}$"),
    **dict(zip("οΑΒΕΖΗΙΚΜΝΟΡΤΧ", "oABEZHIKMNOPTX", strict=True)),  # Greek letters that look like Latin ones
    **_pairs("± pm ∓ mp · cdot ⋅ cdot × times ÷ div ≤ le ≥ ge ≠ ne ≈ approx ≡ equiv ∼ sim ∝ propto", r"$\{}$"),
    **_pairs("√ surd ∞ infty ∑ sum ∏ prod ∈ in ∅ emptyset ∪ cup ∩ cap ∇ nabla ∂ partial ∗ ast ¬ neg", r"$\{}$"),
    **_pairs("→ to ← gets ↔ leftrightarrow ↑ uparrow ↓ downarrow ⇒ Rightarrow ‖ | • bullet", r"$\{}$"),
    **_pairs(f"{MINUS} - ° ^\\circ", "${}$"),
    **_pairs("\" '' – -- — --- ‘ ` ’ ' “ `` ” '' ‑ - ⁄ /", "{}"),
    **{"\N{ZERO WIDTH SPACE}": "{}", "\N{NO-BREAK SPACE}": "~", "\N{NARROW NO-BREAK SPACE}": "~", "\t": " "},
}
# combining characters, by their code
_ACCENTS = _pairs("0300 ` 0301 ' 0302 ^ 0303 ~ 0304 = 0306 u 0307 . 0308 \" 030A r 030B H 030C v", "{}")
_ACCENTS |= _pairs("0323 d 0327 c 0331 b", "{}")


@dataclass(frozen=True)
class Table:
    """What a reader sees, and the numbers that it was made from.

    Attributes:
        name: The file's stem and the LaTeX label.
        title: The caption's first sentence, without its full stop.
        header: The columns' heads; the first column holds the rows' labels.
        rows: As many texts each as the header has.
        data: The same content as numbers in long form: the CSV file.
        notes: Sentences under the table.
        synthetic: Whether any number comes from generated data; the caption then says so.
        base_row: The label of the row that the others are compared with; HTML sets it apart, wherever it is sorted to.
    """

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    data: pd.DataFrame
    notes: tuple[str, ...] = ()
    synthetic: bool = False
    base_row: str | None = None

    @property
    def caption(self) -> str:
        """The title, and the stamp where the data is synthetic."""
        return f"{self.title}. {SYNTHETIC}" if self.synthetic else f"{self.title}."

    @property
    def is_text(self) -> tuple[bool, ...]:
        """For each column, whether none of its cells is a number."""
        columns = ([row[place] for row in self.rows] for place in range(len(self.header)))
        return tuple(not any(map(_NUMBER.match, cells)) for cells in columns)

    @property
    def is_left(self) -> tuple[bool, ...]:
        """For each column, whether it stands to the left: labels and texts do, numbers to the right."""
        return (True, *self.is_text[1:])


def to_markdown(table: Table) -> str:
    """The table in Markdown as GitHub reads it, its columns aligned, its caption on top, its notes as a list below."""
    texts = [[_markdown_text(cell) for cell in row] for row in (table.header, *table.rows)]
    columns = list(zip(*texts, strict=True))
    widths = [max([3, *(len(cell) for cell in column if len(cell) <= LONG_CELL)]) for column in columns]

    def line(cells: list[str]) -> str:
        sides = zip(cells, widths, table.is_left, strict=True)
        return f"| {' | '.join(cell.ljust(width) if text else cell.rjust(width) for cell, width, text in sides)} |"

    dashes = zip(("-" * (width - 1) for width in widths), table.is_left, strict=True)
    rule = [f":{dash}" if text else f"{dash}:" for dash, text in dashes]
    lines = [f"**{_markdown_text(table.caption)}**", "", line(texts[0]), line(rule), *map(line, texts[1:])]
    if table.notes:
        # a note that begins like a list or a heading would become one
        notes = (re.sub(r"^(\d+(?=[.)])|(?=[-+#]))", r"\1\\", _markdown_text(note)) for note in table.notes)
        lines += ["", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def _markdown_text(text: str) -> str:
    text = re.sub(r"([\\|*`\[\]<>~$])", r"\\\1", _one_line(text))
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # within a word it is no emphasis
    return re.sub(r"&(?=#?\w+;)", r"\\&", text)


def _one_line(text: str) -> str:
    return " ".join(part.strip() for part in text.splitlines())


def to_csv(table: Table) -> str:
    """The numbers behind the table, one line a cell, unrounded; ``synthetic`` is a column of its own."""
    return str(table.data.assign(synthetic=table.synthetic).to_csv(index=False, lineterminator="\n"))


def to_latex(table: Table) -> str:
    r"""A ``table`` for ``\usepackage{booktabs,graphicx}`` in ASCII: every text escaped, the notes below the rules.

    One that is wider than the page is scaled down to it; one of more than `LATEX_ROWS` rows goes on in further tables
    of the same number.
    """
    parts = [table.rows[start : start + LATEX_ROWS] for start in range(0, max(1, len(table.rows)), LATEX_ROWS)]
    lines = [r"% needs \usepackage{booktabs,graphicx}"]
    for number, rows in enumerate(parts, start=1):
        count = f" ({number} of {len(parts)})" if len(parts) > 1 else ""
        lines += [r"\begin{table}", r"\centering", *([r"\addtocounter{table}{-1}"] if number > 1 else [])]
        lines.append(rf"\caption{{{latex_text(table.caption + count)}}}")
        if number == 1:
            lines.append(rf"\label{{tab:{re.sub('[^A-Za-z0-9.:]', '-', table.name)}}}")
        lines += [r"\smallskip", *_latex_tabular(table, rows)]
        if number == len(parts) and table.notes:
            lines += [r"\par\medskip", r"\begin{minipage}{\linewidth}\footnotesize\raggedright"]
            lines += [*(rf"{latex_text(note)}\par" for note in table.notes), r"\end{minipage}"]
        lines.append(r"\end{table}")
    return "\n".join(lines) + "\n"


def _latex_tabular(table: Table, rows: tuple[tuple[str, ...], ...]) -> list[str]:
    def line(cells: tuple[str, ...]) -> str:
        text = " & ".join(latex_text(cell) for cell in cells) + r" \\"
        return f"{{}}{text}" if text.startswith(("[", "*")) else text  # which the line before would take for its own

    return [
        r"\sbox0{%",
        rf"\begin{{tabular}}{{{''.join('l' if text else 'r' for text in table.is_left)}}}",
        r"\toprule",
        line(table.header),
        r"\midrule",
        *map(line, rows),
        r"\bottomrule",
        r"\end{tabular}}%",
        r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi",
    ]


def latex_text(text: str) -> str:
    """Any text in ASCII as pdflatex prints it; a character that it has no command for becomes ``[U+4F53]``.

    Args:
        text: Line breaks become spaces.
    """
    # two hyphens would become a dash
    apart = re.sub(r"([-,'])(?=\1)", "\\1\N{ZERO WIDTH SPACE}", unicodedata.normalize("NFC", _one_line(text)))
    return "".join(map(_latex_character, apart))


def _latex_character(character: str) -> str:
    if character in _LATEX or " " <= character <= "~":
        return _LATEX.get(character, character)
    kind, *codes = unicodedata.decomposition(character).split() or [""]
    if kind.startswith("<"):  # ², ½, ﬁ: other characters, in another form
        plain = "".join(_latex_character(chr(int(code, 16))) for code in codes)
        return {"<super>": rf"\textsuperscript{{{plain}}}", "<sub>": rf"\textsubscript{{{plain}}}"}.get(kind, plain)
    if codes and codes[0] in _ACCENTS:
        return rf"\{_ACCENTS[codes[0]]}{{{_latex_character(chr(int(kind, 16)))}}}"
    return "" if unicodedata.category(character) == "Cf" else f"[U+{ord(character):04X}]"  # Cf: shows nothing anyway


def to_html(table: Table) -> str:
    """The table in a box of its own in which it scrolls, every text escaped; many notes are folded but for the first.

    A column without numbers has the class ``text``; ``data-sort`` is the number that a cell stands for.
    """
    is_text = table.is_text
    head = Markup("").join(
        Markup('<th scope="col"{}>{}</th>').format(_class(text=text), cell or Markup('<span class="unseen">row</span>'))
        for cell, text in zip(table.header, is_text, strict=True)
    )
    body = Markup("").join(_html_row(row, is_text, is_base=row[0] == table.base_row) for row in table.rows)
    frame = Markup(
        '<div class="table"><div class="scroll"><table><caption><span>{}</span></caption>'
        "<thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>{}</div>\n"
    )
    return str(frame.format(table.caption, head, body, _html_notes(table.notes)))


def _html_row(row: tuple[str, ...], is_text: tuple[bool, ...], *, is_base: bool) -> Markup:
    cells = Markup('<th scope="row">{}</th>').format(row[0])
    for cell, text in zip(row[1:], is_text[1:], strict=True):
        # the base's difference to itself
        key = Markup(' data-sort="0"') if is_base and cell == "base" else ""
        # a cell that also says what is missing may break there, and nowhere else
        shown = Markup(";<br>").join(cell.split("; "))
        cells += Markup("<td{}{}>{}</td>").format(_class(text=text, long=len(cell) > LONG_CELL), key, shown)
    return Markup("<tr{}>{}</tr>").format(_class(base=is_base), cells)


def _class(**names: bool) -> Markup:
    held = " ".join(name for name, holds in names.items() if holds)
    return Markup(' class="{}"').format(held) if held else Markup("")


def _html_notes(notes: tuple[str, ...]) -> Markup:
    def items(some: tuple[str, ...]) -> Markup:
        listed = Markup("").join(Markup("<li>{}</li>").format(note) for note in some)
        return Markup('<ul class="notes">{}</ul>').format(listed) if some else listed

    shown = NOTES_SHOWN if len(notes) > NOTES_SHOWN + 2 else len(notes)
    if not notes[shown:]:
        return items(notes)
    folded = Markup("<details><summary>{} more notes</summary>{}</details>")
    return items(notes[:shown]) + folded.format(len(notes) - shown, items(notes[shown:]))


FORMATS: dict[str, Callable[[Table], str]] = {
    "md": to_markdown,
    "csv": to_csv,
    "tex": to_latex,
    "html": to_html,
}
