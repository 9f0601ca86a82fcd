"""The report as a page: one file that all can read, on a screen of any width, by ear, by keyboard and on paper."""

# ruff: noqa: RUF001  the minus is a true one

import base64
import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from stored import Results

from analysis.formats import Table
from analysis.report import compose, render
from studies.catalog import COMPONENTS, STAGES

VOID = {"meta", "img", "br", "link", "hr", "input"}
MAX_BYTES = 5_000_000
LABEL = "</script><img src=x onerror=alert(1)> http://example.org"


class Node:
    """A tag with its attributes, its text and what it stands in."""

    def __init__(self, tag: str, attributes: dict[str, str | None], inside: tuple["Node", ...]) -> None:
        self.tag, self.attributes, self.inside, self.text = tag, attributes, inside, ""

    def is_in(self, tag: str) -> bool:
        return any(node.tag == tag for node in self.inside)


class Page(HTMLParser):
    """The tags of a page, in their order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.nodes: list[Node] = []
        self.open: tuple[Node, ...] = ()
        self.feed(source)
        assert self.open == ()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.nodes.append(Node(tag, dict(attrs), self.open))
        if tag not in VOID:
            self.open += (self.nodes[-1],)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag
        self.open = self.open[:-1]

    def handle_data(self, data: str) -> None:
        for node in self.open:
            node.text += data

    def all(self, *tags: str) -> list[Node]:
        return [node for node in self.nodes if node.tag in tags]


def long_table(name: str, *, rows: int) -> Table:
    """Numbers of both signs in no order, a cell without one, and a base row."""
    values = [((37 * number) % rows) - rows // 2 for number in range(rows)]
    cells = [
        (f"row {n}", "base" if not n else f"{v}.0 [−1.0, +1.0]".replace("-", "−"), f"{v * 1000:,}", "abc"[n % 3])
        for n, v in enumerate(values)
    ]
    cells[1] = ("row 1", "pending 3/3", "-", "-")
    notes = tuple(f"Note {number} on {name}." for number in range(12))
    return Table(
        name, "Long", ("", "Δ to row 0", "count", "text"), tuple(cells), pd.DataFrame(), notes, base_row="row 0"
    )


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two studies, one of them half finished; a table of a hundred rows in the second, and labels that are HTML."""
    results = Results(tmp_path_factory.mktemp("page") / "results")
    plan = results.plan(COMPONENTS)
    for row in ("B", "B + TE"):
        results.finish(plan, row, seed=0)
    results.finish(plan, "Full", seed=0, status="diverged", epoch=4, error=LABEL, metrics={})
    stages = results.plan(replace(STAGES, title=LABEL, text=LABEL), seeds=[2])
    for row in stages.rows:
        results.finish(stages, row, seed=2)
    page = compose(results.root, [plan, stages])
    first, second = page["sections"]
    return {**page, "sections": [first, replace(second, table=long_table("long", rows=101))]}


@pytest.fixture(scope="module")
def page(composed: dict[str, Any]) -> Page:
    return Page(render(composed))


# one file


def test_the_page_loads_nothing_and_its_own_rules_forbid_it(page: Page) -> None:
    for node in page.nodes:
        assert not {"srcset", "action", "formaction", "data", "poster", "background"} & set(node.attributes)
        for name in ("src", "href", "xlink:href"):
            assert (node.attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))
    style = " ".join(node.text for node in page.all("style"))
    assert "@import" not in style
    assert "url(" not in page.source.replace(LABEL, "")
    policy = next(node.attributes["content"] for node in page.all("meta") if "http-equiv" in node.attributes)
    assert policy is not None
    assert "default-src 'none'" in policy


def test_the_one_script_is_the_one_that_the_page_allows(page: Page) -> None:
    (script,) = page.all("script")
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in page.source, (
        "analysis/report.html.jinja: write this hash into its policy"
    )
    assert not any(name.startswith("on") for node in page.nodes for name in node.attributes)


def test_the_page_is_small_enough_to_send(page: Page) -> None:
    assert len(page.source.encode()) < MAX_BYTES


# by ear and by keyboard


def test_landmarks_are_there_once_and_the_first_link_skips_to_what_was_found(page: Page) -> None:
    assert [len(page.all(tag)) for tag in ("header", "nav", "main", "footer", "h1", "title")] == [1] * 6
    assert page.all("nav")[0].attributes["aria-label"]
    assert page.all("html")[0].attributes["lang"] == "en"
    skip, main = page.all("a")[0], page.all("main")[0]
    assert skip.attributes["href"] == f"#{main.attributes['id']}"
    assert main.attributes["tabindex"] == "-1"
    assert next(node.text for node in page.all("h2")) == "Summary"


def test_headings_leave_out_no_level(page: Page) -> None:
    levels = [int(node.tag[1]) for node in page.all("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_every_section_is_in_the_contents_and_every_link_has_its_target(page: Page) -> None:
    ids = [node.attributes["id"] for node in page.nodes if "id" in node.attributes]
    assert len(ids) == len(set(ids))
    linked = [(node.attributes["href"] or "")[1:] for node in page.all("a") if node.is_in("nav")]
    assert linked == [node.attributes["id"] for node in page.all("section")]
    assert {node.attributes["href"] for node in page.all("a")} <= {f"#{name}" for name in ids}
    assert all(node.text.strip() for node in page.all("a"))


def test_every_table_has_a_caption_and_every_head_a_text_and_a_scope(page: Page) -> None:
    tables, captions = page.all("table"), page.all("caption")
    assert len(tables) == len(captions) >= 5
    assert all(node.text.strip() for node in (*captions, *page.all("th")))
    assert {node.attributes["scope"] for node in page.all("th") if node.is_in("thead")} == {"col"}
    assert {node.attributes["scope"] for node in page.all("th") if node.is_in("tbody")} == {"row"}


def test_every_picture_is_told_in_words_and_has_a_caption(page: Page) -> None:
    assert all(len(node.attributes["alt"] or "") > 40 and node.is_in("figure") for node in page.all("img"))
    assert len(page.all("img")) == len(page.all("figcaption"))
    assert all(node.text.strip() for node in page.all("figcaption"))


def test_without_its_script_a_table_is_a_plain_one(page: Page) -> None:
    assert page.all("button") == []
    assert not any("aria-sort" in node.attributes for node in page.nodes)


def test_many_studies_have_a_short_title_and_each_its_link(composed: dict[str, Any]) -> None:
    first = composed["sections"][0]
    many = [replace(first, plan=first.plan.model_copy(update={"name": f"study-{n}"}), pictures=[]) for n in range(40)]
    page = Page(render({**composed, "sections": many}))
    assert page.all("h1")[0].text == page.all("title")[0].text == "TAG-Head: 40 studies"
    links = {node.attributes["href"] for node in page.all("a") if node.is_in("nav")}
    assert {f"#study-study-{n}" for n in range(40)} <= links


# colours

THEMES = ("light", "dark", "print")
TEXTS = [
    ("text", "page"), ("text", "card"), ("text", "base"), ("text", "stamp-page"), ("soft", "page"), ("soft", "card"),
    ("soft", "base"), ("accent", "page"), ("accent", "card"), ("accent", "base"), ("stamp", "stamp-page"),
]  # fmt: skip


def colours(style: str, theme: str) -> dict[str, str]:
    """The variables as a theme sets them, over those of the light one."""
    light, dark, printed = (
        dict(re.findall(r"--([\w-]+): (#\w+)", block)) for block in re.findall(r":root \{.*?\}", style)
    )
    return light | {"light": {}, "dark": dark, "print": printed}[theme]


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    channels = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#fff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize(("front", "back"), TEXTS)
def test_every_text_stands_out_from_what_is_behind_it(page: Page, theme: str, front: str, back: str) -> None:
    known = colours(page.all("style")[0].text, theme)
    assert contrast(known[front], known[back]) >= 4.5


# in a browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
DRIVER = """<script>
const table = [...document.querySelectorAll("table")].find((one) => one.caption.textContent === "Long.");
const buttons = [...table.querySelectorAll("th button")];
const look = () => [[...table.tHead.rows[0].cells].map((head) => head.getAttribute("aria-sort")),
                    [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.textContent))];
const seen = { before: look(), names: buttons.map((one) => one.textContent) };
for (const column of [0, 1, 2, 3]) for (const click of [1, 2, 3]) {
  buttons[column].focus();
  seen.focus = document.activeElement === buttons[column];
  document.activeElement.click();
  seen[`${column} ${click}`] = look();
}
buttons[1].click();
buttons[2].click();
seen.other = look();
seen.base = table.querySelector("tr.base th").textContent;
dispatchEvent(new Event("beforeprint"));
seen.printed = document.querySelectorAll("details:not([open])").length;
dispatchEvent(new Event("afterprint"));
seen.folded = document.querySelectorAll("details:not([open])").length;
document.body.textContent = "SEEN" + JSON.stringify(seen) + "SEEN";
</script>"""
WIDTHS = """<iframe style="width:390px;height:800px"></iframe><iframe style="width:1280px;height:800px"></iframe>
<script>
addEventListener("load", () => {
  const of_frame = ({ contentDocument: page }) => ({
    wide: page.documentElement.scrollWidth,
    boxes: [...page.querySelectorAll(".scroll, .card")].map((box) =>
      [box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight, box.tabIndex]),
  });
  const seen = [...document.querySelectorAll("iframe")].map(of_frame);
  document.body.textContent = "SEEN" + JSON.stringify(seen) + "SEEN";
});
for (const frame of document.querySelectorAll("iframe")) frame.src = "page.html";
</script>"""


def chromium(*options: str) -> str:
    assert CHROMIUM is not None
    common = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    return subprocess.run([CHROMIUM, *common, *options], capture_output=True, text=True, check=True).stdout


def seen_in(path: Path) -> Any:
    """What a script on a page has written into it."""
    source = chromium("--virtual-time-budget=10000", "--dump-dom", path.as_uri())
    return json.loads(source.split("SEEN")[-2].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


@pytest.fixture(scope="module")
def clicked(page: Page, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The long table after each click on each of its heads, by column and click."""
    path = tmp_path_factory.mktemp("clicked") / "page.html"
    source = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.source)  # the driver is no part of it
    path.write_text(source.replace("</body>", DRIVER + "</body>"), encoding="utf-8")
    seen: dict[str, Any] = seen_in(path)
    return seen


def value(cell: str) -> float:
    number = re.match(r"-?[\d,]+(\.\d+)?", cell.replace("−", "-"))
    return 0.0 if cell == "base" else float(number[0].replace(",", "")) if number else float("nan")


@in_a_browser
def test_a_first_click_puts_the_largest_number_on_top_and_what_has_none_at_the_end(clicked: dict[str, Any]) -> None:
    for column in (1, 2):
        sorted_by, rows = clicked[f"{column} 1"]
        values = [value(row[column]) for row in rows]
        assert sorted_by[column] == "descending"
        assert values[:-1] == sorted(values[:-1], reverse=True)
        assert rows[-1][0] == "row 1"
    assert clicked["base"] == "row 0"


@in_a_browser
def test_a_second_click_turns_the_numbers_round_and_not_what_has_none(clicked: dict[str, Any]) -> None:
    for column in (1, 2):
        sorted_by, rows = clicked[f"{column} 2"]
        values = [value(row[column]) for row in rows]
        assert sorted_by[column] == "ascending"
        assert values[:-1] == sorted(values[:-1])
        assert rows[-1][0] == "row 1"


@in_a_browser
def test_a_third_click_restores_the_order(clicked: dict[str, Any]) -> None:
    assert all(clicked[f"{column} 3"] == clicked["before"] for column in range(4))


@in_a_browser
def test_texts_go_from_a_on_with_the_numbers_in_them_in_their_order(clicked: dict[str, Any]) -> None:
    sorted_by, rows = clicked["0 1"]
    assert sorted_by == ["ascending", None, None, None]
    assert [row[0] for row in rows] == [f"row {number}" for number in range(101)]
    _, rows = clicked["3 1"]
    letters = [row[3] for row in clicked["before"][1] if row[3] != "-"]
    assert [row[3] for row in rows] == [*sorted(letters), "-"]
    assert [row[3] for row in clicked["3 2"][1]] == [*sorted(letters, reverse=True), "-"]


@in_a_browser
def test_rows_that_are_equal_keep_their_order(clicked: dict[str, Any]) -> None:
    numbers = [int(row[0][4:]) for row in clicked["3 1"][1] if row[3] == "a"]
    assert numbers == sorted(numbers)


@in_a_browser
def test_one_column_at_a_time_is_said_to_be_sorted(clicked: dict[str, Any]) -> None:
    assert clicked["other"][0] == [None, None, "descending", None]


@in_a_browser
def test_every_head_is_a_button_with_a_name_that_takes_the_focus(clicked: dict[str, Any]) -> None:
    assert clicked["names"] == ["row", "Δ to row 0", "count", "text"]
    assert clicked["focus"]


@in_a_browser
def test_what_is_folded_opens_for_the_printer_and_folds_again(clicked: dict[str, Any]) -> None:
    assert clicked["printed"] == 0
    assert clicked["folded"] >= 1


@in_a_browser
@pytest.mark.parametrize(("place", "width"), [(0, 390), (1, 1280)])
def test_the_page_is_as_wide_as_its_window_and_boxes_that_scroll_take_the_focus(
    page: Page, tmp_path: Path, place: int, width: int
) -> None:
    (tmp_path / "page.html").write_text(page.source, encoding="utf-8")
    (tmp_path / "widths.html").write_text(f"<!doctype html><body>{WIDTHS}</body>", encoding="utf-8")
    seen = seen_in(tmp_path / "widths.html")[place]
    assert seen["wide"] <= width
    assert any(scrolls for scrolls, _ in seen["boxes"])
    assert all((focus == 0) == scrolls for scrolls, focus in seen["boxes"])


@in_a_browser
@pytest.mark.skipif(not shutil.which("pdftotext"), reason="no pdftotext")
def test_every_note_is_on_paper_and_a_table_has_its_heads_on_each_page(page: Page, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(page.source, encoding="utf-8")
    chromium("--no-pdf-header-footer", f"--print-to-pdf={tmp_path / 'page.pdf'}", (tmp_path / "page.html").as_uri())
    told = subprocess.run(["pdftotext", tmp_path / "page.pdf", "-"], capture_output=True, text=True, check=True).stdout
    assert "Note 11 on long." in told
    assert "row 100" in told
    assert told.count("Δ to row 0") > 1  # the heads stand on each page that the table goes on to
    assert "more notes" not in told
