"""``taghead-analysis`` as a user types it."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from stored import Results
from typer.testing import CliRunner

from analysis.__main__ import app, main
from studies.catalog import COMPONENTS, STAGES
from studies.plan import Plan
from taghead.recipes import recipe


def run(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["taghead-analysis", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


def test_tables_are_written_in_the_formats_asked_for(results: Results, components: Plan, tmp_path: Path) -> None:
    run(
        "tables",
        "components",
        "--results",
        str(results.root),
        "--out",
        str(tmp_path / "t"),
        "--format",
        "md,csv,tex,html",
    )
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == [
        "components.csv",
        "components.html",
        "components.md",
        "components.tex",
    ]


def test_tables_without_a_folder_are_printed(results: Results, components: Plan) -> None:
    assert "| B + TE + IF-FC |" in run("tables", "components", "--results", str(results.root))


def test_curves_and_tsne_are_written(results: Results, stages: Plan, tmp_path: Path) -> None:
    common = ["--results", str(results.root), "--out", str(tmp_path), "--figures", "png"]
    run("curves", "stages", *common)
    assert "24 test clips of 4 classes" in run("tsne", "stages", *common)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        "stages_synthetic_curves.png",
        "stages_synthetic_tsne.png",
    ]


def test_a_label_with_signs_makes_one_file_and_what_is_damaged_or_not_drawn_is_printed(
    results: Results, tmp_path: Path
) -> None:
    study = replace(STAGES, rows={"\u4f53": {}, "TAG": {"head.alpha": 0.2}}, base_row=None)
    plan = results.plan(study, seeds=[0], **{"a:b $x": recipe("synthetic")})
    folders = [results.finish(plan, row, seed=0) for row in plan.rows]
    common = ["stages", "--results", str(results.root), "--out", str(tmp_path / "f"), "--figures", "png"]
    assert "the font has no \u4f53; empty boxes" in run("tsne", *common)
    (folders[1] / "embeddings.npz").write_bytes(b"cut")
    (folders[1] / "history.csv").write_bytes(b"")
    assert "embeddings.npz cannot be read" in run("tsne", *common)
    assert "history.csv cannot be read" in run("curves", *common)
    assert sorted(path.name for path in (tmp_path / "f").iterdir()) == [
        "stages_a_b__x_curves.png",
        "stages_a_b__x_tsne.png",
    ]


def test_frame_weights_are_written(tmp_path: Path) -> None:
    run("frame_weights", "--grid", "4", "9", "--out", str(tmp_path), "--format", "md", "--figures", "svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["contrast.svg", "frame_weights.md", "frame_weights.svg"]


def test_complexity_takes_a_study_along(results: Results, components: Plan) -> None:
    text = run("complexity", "components", "--results", str(results.root))
    assert "in two different heads" in text
    assert "What each component adds: what a row costs" in text


def test_report_says_where_it_is(
    results: Results, components: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the page has its own tests
    monkeypatch.setattr("analysis.report.compose", lambda folder, plans: plans[0].name)
    monkeypatch.setattr("analysis.report.render", lambda page: page)
    out = tmp_path / "deep" / "report.html"
    assert str(out) in run("report", "components", "--results", str(results.root), "--out", str(out))
    assert out.read_text(encoding="utf-8") == "components"


def test_a_study_that_was_not_launched_is_told_how_to(
    results: Results, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results.plan(COMPONENTS)
    message = refused(monkeypatch, capsys, "tables", "stages", "--results", str(results.root))
    assert f"run taghead-studies run stages --results {results.root} first" in message


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["tables", "componets"], "did you mean 'components'"),
        (["tables", "components", "--format", "md,latex"], "--format: unknown 'latex'"),
        (["curves", "components", "--figures", "jpg"], "--figures: unknown 'jpg'"),
        (["report", "componets"], "did you mean 'components'"),
        (["report", "components", "--out", "."], "a folder, but the report is one file"),
        (["report", "components", "--out", "file/report.html"], "file: no folder to write to"),
        (["tables", "components", "--out", "file"], "file: no folder to write to"),
        (["curves", "components", "--out", "file"], "file: no folder to write to"),
        (["tables", "components", "--format", ""], "--format: none given; valid names: csv, html, md, tex"),
        (["curves", "components", "--figures", ","], "--figures: none given; valid names: pdf, png, svg"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(
    results: Results,
    components: Plan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    part: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    message = refused(monkeypatch, capsys, *words, "--results", str(results.root))
    assert part in message
    assert message.startswith("error: ")


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from analysis.__main__ import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'pandas', 'matplotlib', 'numpy', 'ray') if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(
        verb in output
        for verb in (
            "tables",
            "complexity",
            "latency",
            "tsne",
            "frame_weights",
            "curves",
            "sweeps",
            "classes",
            "importance",
            "export",
            "report",
        )
    )
    assert output.rstrip().endswith("[]")
