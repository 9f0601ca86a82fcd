"""Figure 3."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from stored import CLIPS, Results

from analysis.embeddings import Clips, class_names, family_of, load
from analysis.tsne import (
    EVENTS,
    MAX_POINTS,
    draw_tsne,
    in_words,
    knn_accuracy,
    note,
    num_neighbours,
    of_datasets,
    scores_data,
    tsne_data,
)
from studies.catalog import STAGES
from studies.plan import Plan
from taghead.errors import InputError
from taghead.recipes import recipe


def clusters(row: str, *, classes: int, each: int, distance: float, names: tuple[str, ...] = ()) -> Clips:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), each)
    centres = distance * np.eye(classes, dtype=np.float32)
    vectors = centres[labels] + generator.normal(size=(len(labels), classes)).astype(np.float32)
    ids = np.array([f"clip{index}" for index in range(len(labels))])
    return Clips(row, ids, labels, vectors, dataset="generated", names=names)


def embeddings(results: Results, plan: Plan, row: str) -> Path:
    return results.root / "trials" / plan.cell(row, plan.datasets[0]).trials[0] / "embeddings.npz"


def spoil(path: Path, vectors: object, *, clips: slice = slice(None)) -> None:
    """Writes other vectors for some clips of a trial."""
    arrays = dict(np.load(path))
    arrays["embeddings"][clips] = vectors
    np.savez(path, **arrays)


def test_every_panel_shows_the_same_clips_in_the_same_order(results: Results, stages: Plan) -> None:
    rows, _ = load(results.root, stages, dataset="synthetic", seed=0)
    assert [clips.row for clips in rows] == ["TL", "FT", "TAG"]
    assert all((clips.ids == rows[0].ids).all() and (clips.labels == rows[0].labels).all() for clips in rows)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_clip_without_a_vector_in_some_row_is_in_no_panel(results: Results, stages: Plan, value: float) -> None:
    spoil(embeddings(results, stages, "FT"), value, clips=slice(3, 4))
    rows, said = load(results.root, stages, dataset="synthetic", seed=0)
    assert {len(clips.ids) for clips in rows} == {CLIPS - 1}
    assert said == [f"1 of {CLIPS} clips have no vector in some row, and are in no panel."]


@pytest.mark.parametrize(
    ("value", "reason"),
    [(np.nan, f"0 of its {CLIPS} vectors are numbers"), (1.0, f"its {CLIPS} vectors are all equal")],
)
def test_a_row_without_usable_vectors_hides_no_other(results: Results, stages: Plan, value: float, reason: str) -> None:
    spoil(embeddings(results, stages, "FT"), value)
    rows, (said,) = load(results.root, stages, dataset="synthetic", seed=0)
    assert [(clips.row, len(clips.ids)) for clips in rows] == [("TL", CLIPS), ("TAG", CLIPS)]
    assert reason in said and said.startswith("FT, synthetic, seed 0")


def test_a_row_that_has_not_run_is_named_with_its_command(results: Results) -> None:
    plan = results.plan(STAGES)
    results.finish(plan, "TAG", seed=0)
    rows, said = load(results.root, plan, dataset="synthetic", seed=0)
    assert [clips.row for clips in rows] == ["TAG"]
    assert said == ["Without embeddings: TL, FT; run taghead-studies run stages --keep embeddings first."]


def test_the_same_seed_draws_the_same_picture(results: Results, stages: Plan) -> None:
    rows, _ = load(results.root, stages, dataset="synthetic", seed=0)
    assert tsne_data(rows).equals(tsne_data(rows))


def test_perplexity_is_clamped_for_few_clips() -> None:
    few = [clusters("TL", classes=2, each=5, distance=5)]
    data = tsne_data(few)
    assert set(data["perplexity"]) == {3.0}
    said = note(data, scores_data(few), dataset="generated", seed=0)
    assert "perplexity 3 (30 was asked for, but 10 points bear a third of 9 at the most)" in said
    many = [clusters("TL", classes=2, each=10, distance=5)]
    assert "asked" not in note(tsne_data(many, perplexity=6), scores_data(many), dataset="generated", seed=0)


def test_too_few_clips_have_no_picture() -> None:
    with pytest.raises(InputError, match="needs at least 4 clips that every row has, but got 3"):
        tsne_data([clusters("TL", classes=3, each=1, distance=5)])


def test_no_more_points_are_drawn_than_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_POINTS >= 1000
    monkeypatch.setattr("analysis.tsne.MAX_POINTS", 12)
    rows = [clusters(row, classes=4, each=10, distance=5) for row in ("TL", "FT")]
    data = tsne_data(rows)
    assert data.groupby("panel")["id"].apply(list).map(tuple).nunique() == 1
    assert len(data) == 24
    assert "12 of 40 test clips" in note(data, scores_data(rows), dataset="generated", seed=0)


def test_classes_far_apart_have_all_neighbours_right_and_a_silhouette_near_one() -> None:
    (score,) = scores_data([clusters("TAG", classes=3, each=10, distance=1000)]).itertuples()
    assert score.knn == 100.0
    assert score.silhouette > 0.99


@pytest.mark.parametrize(("each", "k"), [(3, 2), (2, 1), (5, 4), (6, 5), (20, 5)])
def test_classes_far_apart_have_all_neighbours_right_however_small_they_are(each: int, k: int) -> None:
    rows = [clusters("TAG", classes=100, each=each, distance=1000)]
    (score,) = scores_data(rows).itertuples()
    assert (score.k, score.knn) == (k, 100.0)
    assert in_words(score).startswith(f"{k}-NN 100.0 %, silhouette ")
    said = note(drawn(rows), scores_data(rows), dataset="generated", seed=0)
    assert f"accuracy of the {f'{k} nearest neighbours' if k > 1 else 'nearest neighbour'}" in said
    number = each if k > 1 else "one or two"
    assert (f"(and not 5: the smallest class has {number} clips)" in said) == (k < 5)


def test_a_class_of_one_clip_leaves_one_neighbour() -> None:
    assert num_neighbours(np.array([0, 0, 0, 1])) == 1


def test_neighbours_are_counted_without_the_clip_itself() -> None:
    vectors = np.array([[0.0], [0.1], [10.0], [10.1]])
    # each clip's own label is unique, so that only its own vote could make it right
    assert knn_accuracy(vectors, np.array([0, 1, 2, 3])) == 0.0


def test_labels_drawn_at_random_are_neighbours_at_chance() -> None:
    generator = np.random.default_rng(0)
    accuracy = knn_accuracy(generator.normal(size=(2000, 4)), generator.integers(4, size=2000))
    assert accuracy == pytest.approx(0.25, abs=0.04)  # four standard errors


def test_names_come_from_clip_ids_where_they_carry_them(results: Results, stages: Plan) -> None:
    (first, *_), _ = load(results.root, stages, dataset="synthetic", seed=0)
    assert class_names(first) == {0: "motion a", 1: "motion b", 2: "motion c", 3: "motion d"}
    gym = Clips("TL", np.array(["abc_E_1_2_A_0_1", "abc_E_1_2_A_0_2"]), np.array([0, 1]), np.zeros((2, 1)))
    assert class_names(gym) == {0: "class 0", 1: "class 1"}


GYM = tuple(f"({event}) element {number}" for event in EVENTS for number in range(25))


def test_names_are_those_of_the_records_unless_others_are_given(results: Results, stages: Plan) -> None:
    for path in (results.root / "trials").glob("*/record.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"data": record["data"] | {"classes": GYM[:4]}}))
    (first, *_), _ = load(results.root, stages, dataset="synthetic", seed=0)
    assert class_names(first) == dict(enumerate(GYM[:4]))
    (first, *_), _ = load(results.root, stages, dataset="synthetic", seed=0, classes=("w_e", "x", "y", "z"))
    assert [class_names(first)[label] for label in (0, 3)] == ["w e", "z"]


def test_the_event_is_what_an_element_of_finegym_begins_with() -> None:
    assert family_of("(VT) round-off, flic-flac on") == "VT"
    assert family_of("round-off (VT)") == family_of("(VT)") == family_of("class 3") == ""


def drawn(rows: list[Clips]) -> pd.DataFrame:
    """The clips at places that no t-SNE was asked for: what is tested is how they look."""
    names = class_names(rows[0])
    parts = [
        pd.DataFrame({"panel": clips.row, "label": clips.labels, "x": clips.labels, "y": clips.labels})
        for clips in rows
    ]
    data = pd.concat(parts).assign(dataset=rows[0].dataset)
    data["name"] = data["label"].map(names)
    return data.assign(family=data["name"].map(family_of), perplexity=5.0, asked=5.0)


def picture(classes: int, names: tuple[str, ...] = ()) -> Figure:
    rows = [clusters(row, classes=classes, each=2, distance=9, names=names) for row in ("TL", "FT")]
    return draw_tsne(drawn(rows), scores_data(rows), synthetic=True)


def looks(figure: Figure) -> list[list[tuple[object, object]]]:
    return [
        [(tuple(dots.get_facecolor()[0]), dots.get_paths()[0].vertices.tobytes()) for dots in axis.collections]
        for axis in figure.axes
    ]


@pytest.mark.parametrize("names", [(), GYM])
@pytest.mark.parametrize("classes", [4, 20, 99])
def test_a_class_looks_the_same_in_all_panels_and_unlike_any_other(classes: int, names: tuple[str, ...]) -> None:
    figure = picture(classes, names)
    left, right = looks(figure)
    assert left == right
    assert len(set(left)) == classes
    # every class while they are few; then the events, if there are any: more would be larger than the figure
    legends = [len(part.legends[0].get_texts()) if part.legends else 0 for part in figure.subfigs]
    assert legends == [classes if classes <= 20 else 4 if names else 0]


def test_many_classes_of_one_event_are_shades_of_one_colour() -> None:
    hues = []
    for colour, _ in looks(picture(99, GYM))[0]:
        red, green, blue, _ = colour  # type: ignore[misc]
        hues.append(max(range(3), key=lambda index: (red, green, blue)[index]))
    vault, floor, beam = hues[:25], hues[25:50], hues[50:75]
    assert (set(vault), set(floor), set(beam)) == ({2}, {0}, {1})  # blue, vermilion, green


def test_the_caption_says_what_the_colours_are() -> None:
    rows = [clusters("TL", classes=99, each=2, distance=9, names=GYM)]
    said = note(drawn(rows), scores_data(rows), dataset="generated", seed=0)
    assert "Colours: vault (VT), floor exercise (FX), balance beam (BB), uneven bars (UB)" in said
    few = [clusters("TL", classes=4, each=2, distance=9, names=GYM)]
    assert "Colours" not in note(drawn(few), scores_data(few), dataset="generated", seed=0)


def test_one_class_has_no_silhouette() -> None:
    rows = [clusters("TL", classes=1, each=9, distance=9)]
    (axis,) = draw_tsne(drawn(rows), scores_data(rows), synthetic=False).axes
    assert axis.get_xlabel() == "5-NN 100.0 %, no silhouette"


def two_datasets(results: Results) -> Plan:
    plan = results.plan(STAGES, seeds=[0], synthetic=recipe("synthetic"), other=recipe("haa500"))
    for cell in plan.cells:
        if (cell.row, cell.dataset) != ("FT", "other"):
            folder = results.root / "trials" / cell.trials[0]
            folder.mkdir(parents=True)
            clips = clusters(cell.row, classes=3, each=4, distance=9)
            np.savez(folder / "embeddings.npz", ids=clips.ids, labels=clips.labels, embeddings=clips.vectors)
    return plan


def test_each_data_set_is_a_line_of_panels_and_what_lacks_is_an_empty_one(results: Results) -> None:
    plan = two_datasets(results)
    data, scores, said = of_datasets(results.root, plan, plan.datasets, seed=0)
    figure = draw_tsne(data, scores, synthetic=True)
    assert [axis.get_title() for axis in figure.axes] == ["TL", "FT", "TAG"] * 2
    assert [len(axis.collections) for axis in figure.axes] == [3, 3, 3, 3, 0, 3]
    assert [text.get_text() for text in figure.axes[4].texts] == ["no embeddings"]
    assert [one.partition(",")[0] for one in said] == list(plan.datasets)
    assert "Without embeddings: FT" in said[1]


def test_a_data_set_without_embeddings_hides_no_other(results: Results, stages: Plan) -> None:
    plan = results.plan(STAGES, seeds=[0], synthetic=recipe("synthetic"), other=recipe("haa500"))
    data, _, said = of_datasets(results.root, plan, plan.datasets, seed=0)
    assert set(data["dataset"]) == {"synthetic"}
    assert said[-1].startswith("study stages, other, seed 0: no trial with embeddings")
    with pytest.raises(InputError, match="other, seed 0: no trial with embeddings"):
        of_datasets(results.root, plan, ["other"], seed=0)


def test_a_study_without_embeddings_is_told_how_to_get_them(results: Results, components: Plan) -> None:
    with pytest.raises(InputError, match="run taghead-studies run components --keep embeddings first"):
        load(results.root, components, dataset="synthetic", seed=0)


def test_an_unknown_seed_or_data_set_is_refused(results: Results, stages: Plan) -> None:
    with pytest.raises(InputError, match="has no seed 7; it has 0, 1, 2"):
        load(results.root, stages, dataset="synthetic", seed=7)
    with pytest.raises(InputError, match="did you mean 'synthetic'"):
        load(results.root, stages, dataset="syntetic", seed=0)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"no archive"])
def test_damaged_embeddings_are_named_and_left_out(results: Results, stages: Plan, content: bytes) -> None:
    trial = stages.cell("FT", "synthetic").trials[0]
    (results.root / "trials" / trial / "embeddings.npz").write_bytes(content)
    rows, left_out = load(results.root, stages, dataset="synthetic", seed=0)
    assert [clips.row for clips in rows] == ["TL", "TAG"]
    (said,) = left_out
    assert said.startswith(f"FT, synthetic, seed 0 (trial {trial}): embeddings.npz cannot be read (")
    assert note(drawn(rows), scores_data(rows), dataset="synthetic", seed=0, left_out=left_out).endswith(said)


@pytest.mark.parametrize(
    "arrays",
    [
        {"ids": np.array(["a"]), "labels": np.array([0])},
        {"ids": np.array(["a", "b"]), "labels": np.array([0]), "embeddings": np.zeros((1, 2))},
        {"ids": np.array(["a"]), "labels": np.array([0]), "embeddings": np.zeros(1)},
        {"ids": np.array(["a"]), "labels": np.array([0]), "embeddings": np.array([{}])},
    ],
)
def test_a_study_of_which_no_embeddings_can_be_read_says_so(
    results: Results, stages: Plan, arrays: dict[str, np.ndarray]
) -> None:
    for row in stages.rows:
        np.savez(results.root / "trials" / stages.cell(row, "synthetic").trials[0] / "embeddings.npz", **arrays)
    with pytest.raises(InputError, match=r"no embeddings to draw. TL, synthetic, seed 0"):
        load(results.root, stages, dataset="synthetic", seed=0)
