"""Figures of searches whose candidates, scores and costs are known, and what is said of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
import pytest
from stored import Results, data_facts, identify

from analysis import importance
from analysis.figure import to_bytes
from analysis.importance import FEWEST, draw_importance, importance_data, importance_notes
from analysis.search_figures import (
    draw_front,
    draw_history,
    front_data,
    front_note,
    history_data,
    history_note,
    search_figures,
)
from studies.candidates import Candidate, SearchState, start, write_search
from studies.space import Choice, Range
from studies.study import Search
from taghead.config import evolve
from taghead.errors import InputError
from taghead.recipes import recipe
from taghead.record import MachineFacts, Record, write_record

BASE = evolve(recipe("synthetic"), {"model.backbone": "r2plus1d_18"})
Score = float | str  # a fraction, or the status of a trial without one


def search(objectives: tuple[str, ...] = ("top1",), **more: Any) -> Search:
    space = {
        "head.readout": Choice(("mean", "max")),
        "head.ffn_dim": Choice((64, 128, 256, 512)),
        "train.lr": Range(1e-5, 1e-1, log=True),
        "head.alpha": Range(0.0, 1.0, only_if={"head.readout": ("max",)}),
    }
    known: dict[str, Any] = {"name": "tried", "title": "t", "space": space, "datasets": {"synthetic": BASE}}
    return Search(**{**known, "sampler": "random", "objectives": objectives, **more})


def write(
    results: Results,
    one: Search,
    params: Sequence[Mapping[str, Any]],
    scores: Sequence[Score],
    repeats: Mapping[int, int] | None = None,
) -> SearchState:
    """A search with a finished trial for each candidate."""
    identity = identify(BASE)
    identity.validation = True
    candidates = []
    for number, (chosen, score) in enumerate(zip(params, scores, strict=True)):
        name, again = f"{number:016x}", (repeats or {}).get(number)
        stopped = 1 if score == "pruned" else None
        candidates.append(
            Candidate(number=number, params=dict(chosen), trials={0: name}, same_as=again, stopped=stopped)
        )
        if again is not None or score == "open":
            continue
        folder = results.root / "trials" / name
        folder.mkdir(parents=True)
        complete = isinstance(score, float)
        (folder / "history.csv").write_text("epoch,loss,top1,val_top1\n1,2.0,0.25,0.25\n", encoding="utf-8")
        write_record(
            Record(
                trial_id=name,
                seed=0,
                status="complete" if complete else score,
                config=evolve(BASE, dict(chosen)),
                data=data_facts(),
                epoch=1,
                metrics={"top1": score, "mca": score} if complete else {},
                machine=MachineFacts(device="cpu", threads=1, python="3.11", torch="2.13"),
            ),
            folder,
        )
    state = start(one, identity=identity).model_copy(update={"candidates": tuple(candidates)})
    write_search(state, results=results.root)
    return state


def chosen(number: int, **more: Any) -> dict[str, Any]:
    return {"head.readout": "mean", "head.ffn_dim": (64, 128, 256, 512)[number % 4], "train.lr": 1e-3, **more}


def test_the_best_so_far_never_falls_and_passes_over_what_has_no_score(results: Results) -> None:
    write(results, search(), [chosen(n) for n in range(5)], [0.5, "failed", 0.4, 0.7, "diverged"])
    data = history_data(results.root, "tried")
    assert data["state"].tolist() == ["complete", "fail", "complete", "complete", "fail"]
    assert data["running_best"].tolist() == pytest.approx([50, 50, 50, 70, 70])
    assert data["value"].isna().tolist() == [False, True, False, False, True]
    assert history_note(data) == (
        "5 candidates: 3 complete, 2 failed. Best: test Top-1 70.0 % by candidate 3; no complete one came after it."
    )


def test_a_pruned_candidate_stands_where_it_was_stopped_and_is_never_the_best(results: Results) -> None:
    one = search(("val_top1",), pruner="median")
    write(results, one, [chosen(0), chosen(1)], ["pruned", "open"])
    data = history_data(results.root, "tried")
    assert data["state"].tolist() == ["pruned", "open"]
    assert data["value"].tolist()[0] == pytest.approx(25)
    assert data["running_best"].isna().all()
    assert history_note(data) == "2 candidates: 1 pruned, 1 without a result yet."


def test_a_repeat_is_no_new_candidate(results: Results) -> None:
    write(results, search(), [chosen(0), chosen(0), chosen(1)], [0.5, 0.5, 0.4], {1: 0})
    note = history_note(history_data(results.root, "tried"))
    assert note.startswith("3 candidates, 1 of which repeat an earlier one: 2 complete.")
    assert note.endswith("the one complete one after it is not better.")


def test_no_candidate_yet_has_no_figure(results: Results) -> None:
    write(results, search(), [], [])
    assert history_note(history_data(results.root, "tried")) == "No candidate is chosen yet."
    assert list(search_figures(results.root, "tried")) == []


def test_an_unknown_search_is_told(results: Results) -> None:
    write(results, search(), [], [])
    with pytest.raises(InputError, match="no search 'tired'"):
        history_data(results.root, "tired")


@pytest.mark.parametrize("scores", [[0.5], ["failed"], ["failed", "failed"], ["open"]])
def test_one_candidate_or_none_that_is_complete_is_drawn_and_not_weighed(results: Results, scores: list[Score]) -> None:
    write(results, search(), [chosen(n) for n in range(len(scores))], scores)
    ((stem, figure, _, _),) = search_figures(results.root, "tried")
    assert stem == "tried_history" and to_bytes(figure, "png")
    data, (said,) = importance_data(results.root, "tried")
    assert data.empty
    assert said.startswith(f"{scores.count(0.5)} complete candidates: too few to tell which keys matter")
    assert f"takes {FEWEST} at the least" in said


def test_a_cost_is_best_where_it_is_lowest(results: Results) -> None:
    write(results, search(("top1", "parameters"), sampler="nsga2"), [chosen(2), chosen(0), chosen(1)], [0.5, 0.4, 0.6])
    data = history_data(results.root, "tried").query("objective == 'parameters'")
    assert data["running_best"].tolist() == [data["value"].iloc[0], data["value"].iloc[1], data["value"].iloc[1]]
    assert 31 < data["value"].min() < 40  # millions


@pytest.fixture
def priced(results: Results) -> None:
    """FFN widths 64, 128, 256, 512: the third is beaten by the second, the fourth is the best and the largest."""
    write(results, search(("top1", "parameters"), sampler="nsga2"), [chosen(n) for n in range(4)], [0.5, 0.7, 0.6, 0.8])


def test_the_front_is_what_no_other_candidate_beats_in_both(results: Results, priced: None) -> None:
    data = front_data(results.root, "tried")
    assert data["front"].tolist() == [True, True, False, True]
    assert front_note(data).startswith("3 of 4 complete candidates are on the front: from test Top-1 50.0 % at 33.")
    assert "M parameters (candidate 0) to test Top-1 80.0 % at" in front_note(data)


def test_the_front_is_drawn_as_a_staircase_of_its_own_points(results: Results, priced: None) -> None:
    figure = draw_front(front_data(results.root, "tried"), synthetic=True)
    rest, front = figure.axes[0].lines
    assert (len(rest.get_xdata()), len(front.get_xdata())) == (1, 3)
    assert front.get_drawstyle() == "steps-post"


def test_one_objective_has_no_front(results: Results) -> None:
    write(results, search(), [chosen(0), chosen(1)], [0.5, 0.6])
    assert front_data(results.root, "tried").empty


@pytest.fixture
def ruled(results: Results, monkeypatch: pytest.MonkeyPatch) -> SearchState:
    """Thirty candidates whose score is the logarithm of the learning rate; half of them have an alpha."""
    monkeypatch.setattr(importance, "RESAMPLES", 5)
    monkeypatch.setattr(importance, "TREES", 8)
    params, scores = [], []
    for number in range(30):
        exponent = -5 + 4 * (number * 7 % 30) / 29
        more = {"head.readout": "max", "head.alpha": number * 11 % 30 / 30} if number % 2 else {}
        params.append(chosen(number * 13 // 3, **{"train.lr": 10**exponent, **more}))
        scores.append(0.9 + exponent / 10)
    return write(results, search(), params, scores)


def test_the_key_that_makes_the_score_explains_most_and_more_than_chance(results: Results, ruled: SearchState) -> None:
    data, said = importance_data(results.root, "tried")
    top = data.iloc[0]
    assert (top["objective"], top["key"], top["n"]) == ("top1", "train.lr", 30)
    assert top["importance"] > 0.7 > 0.5 > top["chance"]
    assert 0 <= top["low"] <= top["importance"] + 0.1 and top["high"] <= 1 + 1e-9
    assert (data["importance"] >= 0).all() and data["importance"].sum() <= 2
    assert said == []
    notes = importance_notes(data, ruled)
    assert notes[0].startswith(
        "Over 30 complete candidates, these keys explain more of the variance of top1 than in any of 5 shuffles of "
        "their own values: train.lr"
    )
    assert "A key that does nothing passes that mark once in 6 searches." in notes
    assert "random" not in " ".join(notes)


def test_the_mark_of_a_key_that_does_nothing_is_low_beside_one_that_explains_all(
    results: Results, ruled: SearchState
) -> None:
    chance = importance_data(results.root, "tried")[0].set_index("key")["chance"]
    assert chance["head.ffn_dim"] < 0.05 and chance["head.readout"] < 0.05


def test_keys_that_a_sampler_draws_by_earlier_scores_may_pass_more_often(results: Results, ruled: SearchState) -> None:
    data, _ = importance_data(results.root, "tried")
    by_score = ruled.model_copy(update={"definition": {**ruled.definition, "sampler": "tpe"}})
    (said,) = [note for note in importance_notes(data, by_score) if "does nothing" in note]
    assert said.endswith(
        "6 searches that draw it at random; tpe draws it by earlier scores, and it may pass more often."
    )


def test_a_conditional_key_is_weighed_among_the_candidates_that_have_it(results: Results, ruled: SearchState) -> None:
    data, _ = importance_data(results.root, "tried")
    assert data.set_index("key")["n"].to_dict() == {
        "train.lr": 30, "head.readout": 30, "head.ffn_dim": 30, "head.alpha": 15
    }  # fmt: skip
    labels = [label.get_text() for label in draw_importance(data, synthetic=True).axes[0].get_yticklabels()]
    assert "alpha (15)" in labels and "lr" in labels


def test_the_same_store_gives_the_same_importance_and_bytes(results: Results, ruled: SearchState) -> None:
    first, second = (
        [(stem, to_bytes(figure, "png"), alt, caption) for stem, figure, alt, caption in search_figures(root, "tried")]
        for root in (results.root, results.root)
    )
    assert [stem for stem, *_ in first] == ["tried_history", "tried_importance"]
    assert first == second


def test_optunas_own_level_of_logging_is_left_as_it_was(results: Results, ruled: SearchState) -> None:
    before = optuna.logging.get_verbosity()
    importance_data(results.root, "tried")
    assert optuna.logging.get_verbosity() == before


def test_scores_without_a_difference_are_explained_by_no_key(results: Results) -> None:
    write(results, search(), [chosen(n, **{"train.lr": 10 ** -(1 + n / 4)}) for n in range(12)], [0.5] * 12)
    data, said = importance_data(results.root, "tried")
    assert data.empty
    assert said == ["All complete candidates have the same top1: no key explains a difference."]


def test_keys_with_one_value_or_too_few_candidates_are_named(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importance, "RESAMPLES", 2)
    params = [chosen(n) for n in range(11)] + [chosen(0, **{"head.readout": "max", "head.alpha": 0.5})]
    write(results, search(), params, [0.5 + n / 100 for n in range(12)])
    data, said = importance_data(results.root, "tried")
    assert set(data["key"]) == {"head.readout", "head.ffn_dim"}
    assert said == ["Not weighed, with fewer than 10 complete candidates or one value only: train.lr, head.alpha."]


def test_a_score_that_is_no_number_is_a_failure(results: Results) -> None:
    write(results, search(), [chosen(0), chosen(1)], [0.5, 0.6])
    folder = results.root / "trials" / f"{1:016x}"
    (folder / "record.json").write_text((folder / "record.json").read_text().replace("0.6", "NaN"), encoding="utf-8")
    data = history_data(results.root, "tried")
    assert data["state"].tolist() == ["complete", "fail"]
    assert math.isnan(data["value"].iloc[1])


def test_candidates_without_a_score_stand_on_the_axis(results: Results) -> None:
    write(results, search(), [chosen(n) for n in range(3)], [0.5, "failed", 0.6])
    axis = draw_history(history_data(results.root, "tried"), synthetic=True).axes[0]
    failed = [line for line in axis.lines if line.get_label() == "failed" and len(line.get_xdata())]
    assert [list(line.get_xdata()) for line in failed] == [[1]]
