"""Accuracy by class and confused pairs, from predictions whose truth is known."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy import ndarray
from scipy.stats import spearmanr
from stored import Results, data_facts

from analysis.classes import (
    Told,
    classes_data,
    classes_figures,
    classes_notes,
    confusions_data,
    confusions_table,
    draw_classes,
    group_means,
    load,
    size_correlation,
)
from analysis.figure import to_bytes
from analysis.formats import FORMATS
from studies.catalog import COMPONENTS, MAIN
from studies.plan import Plan
from taghead.errors import InputError

ROW = "TAG-Head"


def write(results: Results, plan: Plan, seed: int, labels: list[int], guesses: list[int], *, classes: int) -> Path:
    """Predictions that name ``guesses``; -1 stands for a clip that does not decode."""
    folder = results.root / "trials" / plan.cell(ROW, "synthetic").trials[seed]
    folder.mkdir(parents=True)
    logits = np.eye(classes, dtype=np.float32)[guesses]
    logits[np.array(guesses) < 0] = np.nan
    ids = np.array([f"move {'abcdefgh'[label]}_{number:03d}" for number, label in enumerate(labels)])
    np.savez(folder / "predictions.npz", ids=ids, labels=np.array(labels), logits=logits)
    return folder / "predictions.npz"


def told(results: Results, labels: list[int], *guesses: list[int], classes: int = 4) -> tuple[Plan, Told]:
    plan = results.plan(MAIN)
    for seed, one in enumerate(guesses):
        write(results, plan, seed, labels, one, classes=classes)
    return plan, load(results.root, plan, row=ROW, dataset="synthetic")[0]


LABELS = [0, 0, 0, 0, 1, 1, 1, 2, 2]


def test_a_class_is_pooled_over_the_seeds(results: Results) -> None:
    _, found = told(results, LABELS, [0, 0, 0, 1, 1, 1, 0, 2, 0], [0, 0, 0, 0, 1, 1, 1, 0, 0])
    data = classes_data(found)
    assert data["name"].tolist() == ["move a", "move b", "move c"]
    assert data["size"].tolist() == [4, 3, 2]
    assert data["right"].tolist() == [7, 5, 1]
    assert data["accuracy"].tolist() == pytest.approx([700 / 8, 500 / 6, 25])
    assert data["seeds"].tolist() == [2, 2, 2]


def test_more_seeds_on_the_same_clips_make_no_interval_narrower(results: Results) -> None:
    _, found = told(results, LABELS, *[[0, 0, 0, 1, 1, 1, 0, 2, 0]] * 3)
    one = Told(found.cell, (0,), found.ids[:9], found.labels[:9], found.guesses[:9], 4)
    assert classes_data(found)[["low", "high"]].equals(classes_data(one)[["low", "high"]])


def test_the_mean_over_classes_is_mca(results: Results, components: Plan) -> None:
    from taghead.metrics import mca

    found, _ = load(results.root, components, row="Full", dataset="synthetic")
    by_seed = []
    for trial in components.cell("Full", "synthetic").trials.values():
        with np.load(results.root / "trials" / trial / "predictions.npz") as stored:
            by_seed.append(100 * mca(stored["logits"], stored["labels"]))
    assert classes_data(found)["accuracy"].mean() == pytest.approx(np.mean(by_seed))


def test_a_clip_that_does_not_decode_is_wrong_and_confused_with_nothing(results: Results) -> None:
    plan, found = told(results, [0, 0, 1], [-1, 0, 0])
    data = classes_data(found)
    assert data["accuracy"].tolist() == [50, 0]
    assert data["unreadable"].tolist() == [1, 0]
    assert confusions_data(found)["count"].tolist() == [1]
    assert "1 predictions are of clips that do not decode, and count as wrong." in classes_notes(found, data)
    assert "1 are of clips that do not decode; they name no class." in confusions_table(plan, found).notes


def test_both_ways_of_a_confusion_are_one_pair(results: Results) -> None:
    plan, found = told(results, LABELS, [0, 0, 1, 1, 1, 1, 0, 2, 0])
    pairs = confusions_data(found)
    assert pairs.values.tolist() == [[0, 1, 2, 1, 3, pytest.approx(300 / 7)], [0, 2, 0, 1, 1, pytest.approx(100 / 6)]]
    table = confusions_table(plan, found)
    assert table.rows[0] == ("move a / move b", "2", "1", "3", "42.9 %")
    assert table.notes[1] == "4 of them name a wrong class, in 2 pairs; the 2 shown hold 4 of these (100 %)."
    assert table.synthetic
    assert all(to_text(table) for to_text in FORMATS.values())


def test_equally_confused_pairs_stand_in_the_order_of_their_labels(results: Results) -> None:
    _, found = told(results, [0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2])
    assert confusions_data(found)[["first", "second"]].values.tolist() == [[0, 1], [0, 3], [1, 2], [2, 3]]


def test_nothing_wrong_has_no_pairs(results: Results) -> None:
    plan, found = told(results, LABELS, LABELS)
    table = confusions_table(plan, found)
    assert table.rows == () and table.notes[-1] == "None of them names a wrong class."


def test_a_wrong_class_without_test_clips_still_has_a_name(results: Results) -> None:
    plan, found = told(results, [0, 1], [3, 1])
    assert confusions_table(plan, found).rows[0][0] == "move a / class 3"
    assert "2 of 4 classes have no test clip, and are not shown." in classes_notes(found, classes_data(found))


def test_larger_classes_that_are_told_better_have_a_positive_rank_correlation(results: Results) -> None:
    labels = np.repeat(np.arange(8), np.arange(2, 10)).tolist()
    right = {label: label / 8 for label in range(8)}
    guesses, seen = [], dict.fromkeys(range(8), 0)
    for label in labels:
        guesses.append(label if seen[label] < right[label] * (label + 2) else (label + 1) % 8)
        seen[label] += 1
    _, found = told(results, labels, guesses, classes=8)
    data = classes_data(found)
    rho, p = size_correlation(data)
    assert rho > 0.9 and p < 0.01
    said = " ".join(classes_notes(found, data))
    assert "over 8 classes" in said and "larger classes are told better" in said


def test_size_is_that_of_the_training_split_where_records_hold_it(results: Results) -> None:
    _, found = told(results, LABELS, [0, 0, 0, 1, 1, 1, 0, 2, 0], [0, 0, 0, 0, 1, 1, 1, 0, 0])
    data = classes_data(replace(found, train_counts=(5, 90, 40)))
    assert data["name"].tolist() == ["move b", "move c", "move a"]
    assert data["size"].tolist() == [90, 40, 5] and set(data["sized_by"]) == {"training"}
    assert data["test"].tolist() == [3, 2, 4]
    assert data["low"].tolist() == classes_data(found)["low"].iloc[[1, 2, 0]].tolist()
    (said, *_) = classes_notes(replace(found, train_counts=(5, 90, 40)), data)
    assert "classes of 2 to 4 test clips each" in said and said.endswith("trained on, 5 to 90 of each class.")


def sized(sizes: Iterable[int], accuracies: Iterable[float]) -> pd.DataFrame:
    data = pd.DataFrame({"size": list(sizes), "accuracy": list(accuracies)})
    return data.assign(sized_by="training", name="a", low=data["accuracy"], high=data["accuracy"])


def test_three_classes_in_order_are_no_more_than_chance() -> None:
    rho, p = size_correlation(sized([1, 2, 3], [10, 20, 30]))
    assert (rho, p) == (pytest.approx(1), pytest.approx(1 / 3))


@pytest.mark.parametrize("accuracies", [[1, 3, 2, 5, 4, 6], [2, 2, 1, 1, 3, 3], [6, 1, 4, 1, 2, 0]])
def test_p_of_few_classes_is_that_of_all_their_orders(accuracies: list[float]) -> None:
    sizes = [1, 2, 2, 4, 5, 9]
    rho, p = size_correlation(sized(sizes, accuracies))
    known = [spearmanr(order, accuracies).statistic for order in permutations(sizes)]
    assert p == np.mean([abs(one) >= abs(rho) - 1e-9 for one in known])


def test_p_of_many_classes_is_that_of_scipy() -> None:
    sizes, accuracies = range(10), [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    assert size_correlation(sized(sizes, accuracies)) == pytest.approx(spearmanr(sizes, accuracies))


def test_classes_that_were_not_trained_on_are_within_the_panel() -> None:
    data = sized([0, *range(40)], range(41))
    (axis,) = draw_classes(data, dataset="gym288", synthetic=False).axes
    assert axis.get_xscale() == "symlog" and axis.get_xlim()[0] < 0
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0", "1", "2", "5", "10", "20"]
    (axis,) = draw_classes(data[data["size"] > 0], dataset="gym288", synthetic=False).axes
    assert axis.get_xscale() == "log"


def test_classes_are_named_as_the_records_name_them(results: Results) -> None:
    plan = results.plan(MAIN)
    names = ("(VT) round-off", "(FX) leap", "(BB) turn", "(UB) clear hip")
    results.finish(plan, ROW, seed=0, data=data_facts(classes=names))
    found, _ = load(results.root, plan, row=ROW, dataset="synthetic")
    assert classes_data(found)["name"].tolist() == list(names)


def test_classes_of_one_size_have_no_correlation(results: Results) -> None:
    _, found = told(results, [0, 0, 1, 1, 2, 2], [0, 0, 1, 0, 0, 0])
    data = classes_data(found)
    assert np.isnan(size_correlation(data)).all()
    assert "The 3 classes have one size: no correlation of size and accuracy is to be had." in classes_notes(
        found, data
    )


def test_one_class_is_shown_and_compared_with_none(results: Results) -> None:
    _, found = told(results, [0, 0], [0, -1], classes=1)
    data = classes_data(found)
    assert data["accuracy"].tolist() == [50]
    assert not any(note.startswith("Lowest") for note in classes_notes(found, data))
    assert to_bytes(draw_classes(data, dataset="synthetic", synthetic=True), "png")


def test_a_damaged_file_is_named_and_the_other_seeds_are_told(results: Results) -> None:
    plan = results.plan(MAIN)
    for seed in (0, 1):
        write(results, plan, seed, LABELS, LABELS, classes=4)
    trial = plan.cell(ROW, "synthetic").trials[1]
    (results.root / "trials" / trial / "predictions.npz").write_bytes(b"PK")
    found, (said,) = load(results.root, plan, row=ROW, dataset="synthetic")
    assert said.startswith(f"{ROW}, synthetic, seed 1 (trial {trial}): predictions.npz cannot be read (")
    assert "pooled over 1 of 3 seeds (0)" in classes_notes(found, classes_data(found))[0]


@pytest.mark.parametrize(
    ("labels", "logits"),
    [(np.array([0, 9]), np.zeros((2, 4))), (np.array([0, -1]), np.zeros((2, 4))),
     (np.array([0.5, 1]), np.zeros((2, 4))), (np.array([0, 1]), np.zeros(2)),
     (np.array([], dtype=int), np.zeros((0, 4)))],
)  # fmt: skip
def test_logits_that_fit_no_labels_are_refused(results: Results, labels: ndarray, logits: ndarray) -> None:
    plan = results.plan(MAIN)
    path = write(results, plan, 0, LABELS, LABELS, classes=4)
    np.savez(path, ids=np.array([f"c_{number}" for number in range(len(labels))]), labels=labels, logits=logits)
    with pytest.raises(InputError, match=r"predictions\.npz holds no logits with their labels"):
        load(results.root, plan, row=ROW, dataset="synthetic")


def test_a_data_set_of_which_no_file_can_be_read_is_told(results: Results) -> None:
    plan = results.plan(MAIN)
    write(results, plan, 0, LABELS, LABELS, classes=4).write_bytes(b"PK")
    made, (said,) = classes_figures(results.root, plan)
    assert made == []
    assert said.startswith(f"study main, {ROW}, synthetic: no predictions; {ROW}, synthetic, seed 0 (trial ")


def test_no_predictions_say_what_to_run(results: Results) -> None:
    with pytest.raises(InputError, match=r"no predictions; run taghead-studies run components --results"):
        load(results.root, results.plan(COMPONENTS), row="Full", dataset="synthetic")
    assert classes_figures(results.root, results.plan(COMPONENTS)) == ([], [])


def test_an_unknown_row_names_the_nearest(results: Results, components: Plan) -> None:
    with pytest.raises(InputError, match=r"no row 'full'.*Full"):
        classes_figures(results.root, components, row="full")


def test_classes_grouped_by_size_hold_all_classes_and_split_no_size(results: Results) -> None:
    sizes = np.repeat([1, 1, 2, 2, 2, 3, 5, 8], 5)
    labels = np.repeat(np.arange(40), sizes)
    guesses = np.where(np.arange(len(labels)) % 3 == 0, 0, labels)
    plan = results.plan(MAIN)
    folder = results.root / "trials" / plan.cell(ROW, "synthetic").trials[0]
    folder.mkdir(parents=True)
    ids = np.array([f"clip {number}" for number in range(len(labels))])
    np.savez(folder / "predictions.npz", ids=ids, labels=labels, logits=np.eye(40, dtype=np.float32)[guesses])
    data = classes_data(load(results.root, plan, row=ROW, dataset="synthetic")[0])
    means = group_means(data)
    assert means["size"].is_monotonic_increasing and means["size"].iloc[0] == 1
    assert to_bytes(draw_classes(data, dataset="synthetic", synthetic=False), "png")


def test_the_last_row_is_drawn_and_the_same_store_gives_the_same_bytes(results: Results, components: Plan) -> None:
    first, second = (
        [(stem, to_bytes(figure, "png")) for stem, figure, *_ in classes_figures(results.root, components)[0]]
        for _ in range(2)
    )
    assert first == second and [stem for stem, _ in first] == ["components_synthetic_Full_classes"]
