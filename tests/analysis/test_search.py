"""The table of a search's candidates, from a search.json and records as a search leaves them."""

import shutil

import pytest
from stored import Results, identify
from typer.testing import CliRunner

from analysis.__main__ import app
from analysis.provenance import run_command
from analysis.report import compose, render, tables_of
from analysis.search import candidates_data, candidates_table
from studies.candidates import Candidate, SearchState, start, write_search
from studies.catalog import HEAD_SEARCH
from studies.plan import Plan
from studies.study import Study
from taghead.config import evolve
from taghead.errors import InputError
from taghead.recipes import recipe
from taghead.record import read_record, write_record


def run(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


FIXED = {"model.backbone": "r2plus1d_narrow", "train.lr": 1e-3}
ROWS = {"a": {"head.ffn_dim": 256}, "b": {"head.ffn_dim": 512, "head.dropout": 0.1}, "c": {"head.ffn_dim": 1024}}


@pytest.fixture
def searched(results: Results) -> SearchState:
    """Four candidates: complete, complete and best, pruned, a repeat of the first."""
    base = recipe("synthetic")
    plan = results.plan(Study(name="tried", title="t", rows=ROWS, datasets={"synthetic": base}), seeds=(0,))
    folders = [results.finish(plan, row, seed=0) for row in ROWS]
    (folders[1] / "history.csv").write_text("epoch,loss,val_top1\n1,2.0,0.5\n2,1.0,0.875\n", encoding="utf-8")
    pruned = read_record(folders[2]).model_copy(update={"status": "pruned", "metrics": {}, "epoch": 1})
    write_record(pruned, folders[2])
    (folders[2] / "history.csv").write_text("epoch,loss,val_top1\n1,2.0,0.25\n", encoding="utf-8")
    shutil.rmtree(results.root / "studies")
    identity = identify(base)
    identity.validation = True
    search = HEAD_SEARCH.override(FIXED)
    state = start(search, identity=identity)
    candidates = [
        Candidate(number=number, ahead=4, params={**ROWS[row]}, trials={0: plan.cell(row, "synthetic").trials[0]})
        for number, row in enumerate(ROWS)
    ]
    candidates.append(candidates[0].model_copy(update={"number": 3, "same_as": 0}))
    state = state.model_copy(update={"candidates": tuple(candidates)})
    write_search(state, results=results.root)
    return state


@pytest.fixture
def final(results: Results, searched: SearchState) -> Plan:
    """Its last table."""
    study = HEAD_SEARCH.override(FIXED).study({"base": {}, "winner": ROWS["b"]}, note="Picked from three.")
    plan = results.plan(study, seeds=study.seeds, synthetic=evolve(recipe("synthetic"), FIXED))
    for row in plan.rows:
        for seed in plan.seeds:
            results.finish(plan, row, seed=seed)
    return plan


def test_candidates_come_with_their_scores_states_and_choices(results: Results, searched: SearchState) -> None:
    data = candidates_data(results.root, "head_search")
    assert data["state"].tolist() == ["complete", "complete", "pruned", "complete"]
    assert data["val_top1"].tolist()[:2] == [0.75, 0.875]
    assert data["best"].tolist() == [False, True, False, False]
    assert data["repeats"].tolist()[3] == 0
    assert data["head.ffn_dim"].tolist() == [256, 512, 1024, 256]


def test_the_table_marks_the_best_and_says_that_its_score_is_too_high(results: Results, searched: SearchState) -> None:
    table = candidates_table(results.root, "head_search")
    texts = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    assert [text["candidate"] for text in texts] == ["0", "1 (best)", "2", "3"]
    assert [text["val_top1"] for text in texts] == ["75.0 %", "87.5 %", "pruned after 1", "75.0 %"]
    assert [text["dropout"] for text in texts] == ["-", "0.1", "-", "-"]
    assert [text["ffn_dim"] for text in texts][2] == "1024"
    assert "1 of which repeat an earlier one; of the others 2 complete, 1 pruned." in table.notes[0]
    assert table.synthetic


def test_a_pruned_candidate_whose_history_is_gone_is_still_listed(results: Results, searched: SearchState) -> None:
    (results.root / "trials" / searched.candidates[2].trials[0] / "history.csv").unlink()
    table = candidates_table(results.root, "head_search")
    assert [row[1] for row in table.rows] == ["75.0 %", "87.5 %", "pruned", "75.0 %"]


def test_a_search_without_a_winner_yet_has_its_candidates_and_no_report(
    results: Results, searched: SearchState
) -> None:
    assert "1 (best)" in run("tables", "head_search", "--results", str(results.root))
    with pytest.raises(InputError, match=r"has no winner yet .* taghead-studies run head_search"):
        run("report", "head_search", "--results", str(results.root))


def test_the_winners_table_and_the_report_say_how_it_was_picked(results: Results, final: Plan) -> None:
    said = run("tables", "head_search", "--results", str(results.root))
    assert "1 (best)" in said and "Picked from three." in said and "winner" in said
    page = compose(results.root, [final])
    assert [table.name for table in tables_of(page)][:2] == ["head_search", "head_search_candidates"]
    assert "1 (best)" in render(page)


def test_the_command_of_a_search_fixes_what_it_did_not_search(results: Results, final: Plan) -> None:
    command = run_command(final, results.root)
    assert command.startswith("taghead-studies run head_search ")
    assert "--dataset synthetic --trials 30 --final-seeds 3 --seeds 0, " in command
    assert "--set model.backbone=r2plus1d_narrow" in command and "--set train.lr=0.001" in command
    assert "ffn_dim" not in command


def test_a_single_seed_is_listed_and_not_counted(results: Results) -> None:
    plan = results.plan(
        Study(name="components", title="t", rows=ROWS, datasets={"haa500": recipe("haa500")}), seeds=[4]
    )
    assert "--seeds 4, " in run_command(plan, results.root) + " "
