"""One table of cells, printed as Markdown, CSV, LaTeX (booktabs) or HTML."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup, escape

SYNTHETIC = "SYNTHETIC DATA: generated clips, not those of the paper."
MINUS = "\N{MINUS SIGN}"

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    MINUS: r"$-$",
    "Δ": r"$\Delta$",
    "·": r"$\cdot$",
}


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
    """

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    data: pd.DataFrame
    notes: tuple[str, ...] = ()
    synthetic: bool = False

    @property
    def caption(self) -> str:
        """The title, and the stamp where the data is synthetic."""
        return f"{self.title}. {SYNTHETIC}" if self.synthetic else f"{self.title}."


def to_markdown(table: Table) -> str:
    """The table in Markdown, its caption on top and its notes as a list below."""

    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(_markdown_text(cell) for cell in cells) + " |"

    rule = "| " + " | ".join([":--", *["--:"] * (len(table.header) - 1)]) + " |"
    lines = [f"**{_markdown_text(table.caption)}**", "", line(table.header), rule, *map(line, table.rows)]
    if table.notes:
        lines += ["", *(f"- {_markdown_text(note)}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def _markdown_text(text: str) -> str:
    for character in "\\|*`[]<>":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")


def to_csv(table: Table) -> str:
    """The numbers behind the table, one line a cell, unrounded; ``synthetic`` is a column of its own."""
    return str(table.data.assign(synthetic=table.synthetic).to_csv(index=False, lineterminator="\n"))


def to_latex(table: Table) -> str:
    r"""A ``table`` environment for ``\usepackage{booktabs}``, every text escaped, the notes below the rules."""

    def line(cells: tuple[str, ...]) -> str:
        return " & ".join(latex_text(cell) for cell in cells) + r" \\"

    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(table.caption)}}}",
        rf"\label{{tab:{table.name.replace('_', '-')}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
        r"\toprule",
        line(table.header),
        r"\midrule",
        *map(line, table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\footnotesize {latex_text(note)}" for note in table.notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def latex_text(text: str) -> str:
    """Any text as LaTeX prints it."""
    return "".join(_LATEX.get(character, character) for character in text.replace("\n", " "))


def to_html(table: Table) -> str:
    """A ``<figure>`` whose table scrolls in its own box, every text escaped."""
    parts = [
        '<figure class="table"><figcaption>',
        str(escape(table.caption)),
        '</figcaption><div class="scroll"><table>',
    ]
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(cell) for cell in table.header)
    parts.append(f"<thead><tr>{head}</tr></thead><tbody>")
    for label, *cells in table.rows:
        row = Markup('<th scope="row">{}</th>').format(label)
        # a cell that also says what is missing may break there, and nowhere else
        row += Markup("").join(Markup("<td>{}</td>").format(cell).replace("; ", Markup(";<br>")) for cell in cells)
        parts.append(f"<tr>{row}</tr>")
    parts.append("</tbody></table></div>")
    if table.notes:
        notes = Markup("").join(Markup("<li>{}</li>").format(note) for note in table.notes)
        parts.append(f'<ul class="notes">{notes}</ul>')
    return "".join(parts) + "</figure>\n"


FORMATS: dict[str, Callable[[Table], str]] = {
    "md": to_markdown,
    "csv": to_csv,
    "tex": to_latex,
    "html": to_html,
}
