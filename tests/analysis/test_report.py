"""The report."""

import base64
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored import Results

from analysis import curves, tsne
from analysis.formats import SYNTHETIC
from analysis.report import compose, write_report
from analysis.sections import graph_section, section
from studies.catalog import COMPONENTS, STAGES
from studies.plan import Plan
from studies.study import Study
from taghead.config import evolve
from taghead.errors import InputError
from taghead.recipes import recipe

VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """Reads a page, and fails on tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.links += [value for name, value in attrs if name in ("href", "src") and value]
        self.ids |= {value for name, value in attrs if name == "id" and value}
        if tag == "img":
            self.images.append(values)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Path]:
    """The components study, half finished, the stages with one seed, and their report."""
    results = Results(tmp_path_factory.mktemp("report") / "results")
    plan = results.plan(COMPONENTS)
    for row in ("B", "B + TE", "B + TE + IF-FC"):
        for seed in (0, 1):
            results.finish(plan, row, seed=seed, stream=1 if row == "B + TE + IF-FC" else None)
    results.finish(plan, "Full", seed=0, status="diverged", epoch=4, error="<b>nan</b>", metrics={})
    stages = results.plan(STAGES, seeds=[2])
    for row in stages.rows:
        results.finish(stages, row, seed=2)
    return results, write_report(results.root, ["components", "stages"], results.root / "report.html")[0]


def test_the_same_store_gives_the_same_bytes(made: tuple[Results, Path]) -> None:
    results, path = made
    again = write_report(results.root, ["components", "stages"], results.root / "again.html")[0]
    assert again.read_bytes() == path.read_bytes()


def test_the_page_needs_no_other_file(made: tuple[Results, Path]) -> None:
    page = Page(made[1].read_text(encoding="utf-8"))
    assert page.images
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.ids


def test_every_picture_is_told_in_words_too(made: tuple[Results, Path]) -> None:
    page = Page(made[1].read_text(encoding="utf-8"))
    assert all(len(image["alt"] or "") > 40 for image in page.images)


def test_what_was_asked_found_and_cannot_be_said_comes_first(made: tuple[Results, Path]) -> None:
    text = Page(made[1].read_text(encoding="utf-8")).text
    heads = [
        "What was asked",
        "What was found",
        "What cannot be said",
        "Table 4.",
        "What the graph does to the",
        "Provenance",
    ]
    places = [text.index(head, text.index("What was asked")) for head in heads]
    assert places == sorted(places)
    assert "8 of 15 trials complete" in text  # two of them are the stages' own FT and TAG
    assert "B + TE and B + TE + IF-FC: identical predictions and logits, bit for bit, in both seeds" in text


def test_synthetic_data_is_stamped_and_what_is_missing_is_said(made: tuple[Results, Path]) -> None:
    text = Page(made[1].read_text(encoding="utf-8")).text
    assert text.count(SYNTHETIC) >= 3
    assert "pending 1/3" in text
    assert "diverged at epoch 4 (1/3)" in text


def test_an_error_message_is_shown_as_text(made: tuple[Results, Path]) -> None:
    source = made[1].read_text(encoding="utf-8")
    assert "<b>nan</b>" not in source
    assert "&lt;b&gt;nan&lt;/b&gt;" in source


def test_an_empty_study_has_its_report_and_labels_that_are_html_stay_text(results: Results) -> None:
    evil = "<script>alert(1)</script>"
    study = Study(
        name="evil", title=evil, rows={evil: {}}, datasets={"synthetic": recipe("synthetic")}, text=evil, base_row=evil
    )
    results.plan(study)
    source = write_report(results.root, ["evil"], results.root / "report.html")[0].read_text(encoding="utf-8")
    assert "<script>" not in source
    text = Page(source).text
    assert "Nothing yet: no trial is complete." in text
    assert "pending 3/3" in text


def test_no_time_of_now_is_in_the_page(made: tuple[Results, Path]) -> None:
    import datetime

    text = Page(made[1].read_text(encoding="utf-8")).text
    assert str(datetime.datetime.now(tz=datetime.UTC).year) not in text.replace("2604", "")


def test_the_commands_name_a_folder_with_a_space_as_one_word(tmp_path: Path) -> None:
    results = Results(tmp_path / "my results")
    page = compose(results.root, [results.plan(COMPONENTS)])
    assert all(str(results.root) in shlex.split(command) for command in page["commands"])


def test_a_study_with_embeddings_shows_its_panels(made: tuple[Results, Path]) -> None:
    page = Page(made[1].read_text(encoding="utf-8"))
    assert any("t-SNE of the pooled vectors on synthetic" in (image["alt"] or "") for image in page.images)


def test_a_study_that_was_not_launched_is_refused(results: Results, components: Plan) -> None:
    with pytest.raises(InputError, match="did you mean 'components'"):
        write_report(results.root, ["componets"], results.root / "r.html")


def test_what_the_report_shows_is_written_as_files_too(made: tuple[Results, Path]) -> None:
    results, _ = made
    paths = write_report(results.root, ["components", "stages"], results.root / "page" / "report.html", files=True)
    assert all(path.stat().st_size > 0 for path in paths)
    names = {str(path.relative_to(results.root / "page")) for path in paths}
    assert {"report.html", "tables/components.md", "tables/components.tex", "tables/frame_weights.csv"} <= names
    assert {"figures/frame_weights.png", "figures/efficiency.png", "figures/contrast.png"} <= names
    for path in (results.root / "page" / "figures").glob("*.png"):
        assert base64.b64encode(path.read_bytes()).decode() in paths[0].read_text(encoding="utf-8")
    shown = paths[0].read_text(encoding="utf-8").count("<caption>")
    assert shown - 2 == len([path for path in paths if path.suffix == ".md"])  # not those of failures and provenance


def test_a_tsne_of_too_few_common_clips_is_told_among_what_cannot_be_said(results: Results) -> None:
    plan = results.plan(STAGES, seeds=[0])
    for index, row in enumerate(plan.rows):
        path = results.finish(plan, row, seed=0) / "embeddings.npz"
        arrays = dict(np.load(path))
        kept = slice(8 * index, 8 * index + 8)
        np.savez(path, **{name: values[kept] for name, values in arrays.items()})
    one = section(results.root, plan)
    assert "t-SNE of synthetic needs at least 4 clips that every row has, but got 0." in one.limits
    assert [picture.name for picture in one.pictures if "tsne" in picture.name] == []


def test_figures_of_real_clips_are_not_stamped_for_the_generated_ones_beside_them(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = results.plan(STAGES, seeds=[0], haa500=recipe("haa500"), synthetic=recipe("synthetic"))
    for row in plan.rows:
        folder = results.finish(plan, row, seed=0)  # on the first column
        other = folder.with_name(plan.cell(row, "synthetic").trials[0])
        other.mkdir()
        for name in ("embeddings.npz", "history.csv"):
            shutil.copy(folder / name, other / name)
    stamps: dict[str, list[bool]] = {"tsne": [], "curves": []}
    for name, module in (("tsne", tsne), ("curves", curves)):
        draw = getattr(module, f"draw_{name}")

        def spy(*args: Any, synthetic: bool, draw: Any = draw, name: str = name, **more: Any) -> Any:
            stamps[name].append(synthetic)
            return draw(*args, synthetic=synthetic, **more)

        monkeypatch.setattr(module, f"draw_{name}", spy)
    section(results.root, plan)
    assert stamps == {"tsne": [False, True], "curves": [False, True]}


def test_clips_of_one_time_step_have_their_page_too(results: Results) -> None:
    base = evolve(recipe("synthetic"), {"model.backbone": "r2plus1d_18", "data.num_frames": 8})
    graph = graph_section(results.plan(COMPONENTS, synthetic=base))
    assert "T = 1 time steps" in graph["tables"][0].title
    contrast = graph["pictures"][1]
    assert "lines, at most; bands, down to at least" in contrast.caption
    assert "intra-frame edges alone leave 10.0 %" in contrast.alt


def test_damaged_files_are_named_and_the_page_goes_on(results: Results) -> None:
    plan = results.plan(STAGES, seeds=[0], **{"a:b": recipe("synthetic")})
    for row in plan.rows:
        folder = results.finish(plan, row, seed=0)
        (folder / "embeddings.npz").write_bytes(b"cut")
    for name in ("predictions.npz", "history.csv"):
        (folder / name).write_bytes(b"")
    paths = write_report(results.root, ["stages"], results.root / "page" / "report.html", files=True)
    text = Page(paths[0].read_text(encoding="utf-8")).text
    for name in ("predictions.npz", "embeddings.npz"):
        assert f"TAG, a:b, seed 0 (trial {folder.name}): {name} cannot be read" in text
    assert f"TAG, a:b, seed 0 (trial {folder.name}): history.csv cannot be read" in text
    assert "stages_a_b_curves.png" in {path.name for path in paths}


def test_the_columns_without_figures_are_told_with_the_command_that_draws_them(results: Results) -> None:
    base = recipe("synthetic")
    plan = results.plan(STAGES, seeds=[0], **{f"{n} epochs": evolve(base, {"train.epochs": n}) for n in (2, 3, 4)})
    results.finish(plan, plan.rows[0], seed=0)
    cut = section(results.root, plan, columns=1)
    whole = section(results.root, plan)
    assert cut.table.rows == whole.table.rows
    (said,) = set(cut.limits) - set(whole.limits)
    assert said.startswith("Figures are of 2 epochs alone") and "other 2 columns" in said
    assert f"taghead-analysis report stages --results {results.root}" in said
