"""Figure 3."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from stored import Results

from analysis.tsne import MAX_POINTS, Clips, class_names, draw_tsne, knn_accuracy, load, note, scores_data, tsne_data
from studies.plan import Plan
from taghead.errors import InputError


def clusters(row: str, *, classes: int, each: int, distance: float) -> Clips:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), each)
    centres = distance * np.eye(classes, dtype=np.float32)
    vectors = centres[labels] + generator.normal(size=(len(labels), classes)).astype(np.float32)
    return Clips(row, np.array([f"clip{index}" for index in range(len(labels))]), labels, vectors)


def test_every_panel_shows_the_same_clips_in_the_same_order(results: Results, stages: Plan) -> None:
    rows, _ = load(results.root, stages, dataset="synthetic", seed=0)
    assert [clips.row for clips in rows] == ["TL", "FT", "TAG"]
    assert all((clips.ids == rows[0].ids).all() and (clips.labels == rows[0].labels).all() for clips in rows)


def test_a_clip_that_does_not_decode_is_in_no_panel(results: Results, stages: Plan) -> None:
    path = results.root / "trials" / stages.cell("FT", "synthetic").trials[0] / "embeddings.npz"
    arrays = dict(np.load(path))
    arrays["embeddings"][3] = np.nan
    np.savez(path, **arrays)
    rows, _ = load(results.root, stages, dataset="synthetic", seed=0)
    assert {len(clips.ids) for clips in rows} == {len(arrays["ids"]) - 1}


def test_the_same_seed_draws_the_same_picture(results: Results, stages: Plan) -> None:
    rows, _ = load(results.root, stages, dataset="synthetic", seed=0)
    assert tsne_data(rows).equals(tsne_data(rows))


def test_perplexity_is_clamped_for_few_clips() -> None:
    few = [clusters("TL", classes=2, each=5, distance=5)]
    assert set(tsne_data(few)["perplexity"]) == {3.0}


def test_no_more_points_are_drawn_than_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_POINTS >= 1000
    monkeypatch.setattr("analysis.tsne.MAX_POINTS", 12)
    rows = [clusters(row, classes=4, each=10, distance=5) for row in ("TL", "FT")]
    data = tsne_data(rows)
    assert data.groupby("panel")["id"].apply(list).map(tuple).nunique() == 1
    assert len(data) == 24


def test_classes_far_apart_have_all_neighbours_right_and_a_silhouette_near_one() -> None:
    (score,) = scores_data([clusters("TAG", classes=3, each=10, distance=1000)]).itertuples()
    assert score.knn == 100.0
    assert score.silhouette > 0.99


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


def picture(classes: int) -> Figure:
    """Two panels with the clips at places that no t-SNE was asked for: what is tested is how they look."""
    rows = [clusters(row, classes=classes, each=2, distance=9) for row in ("TL", "FT")]
    parts = [
        pd.DataFrame({"panel": clips.row, "label": clips.labels, "name": "n", "x": clips.labels, "y": clips.labels})
        for clips in rows
    ]
    return draw_tsne(pd.concat(parts), scores_data(rows), synthetic=True)


@pytest.mark.parametrize("classes", [4, 20, 99])
def test_a_class_looks_the_same_in_all_panels_and_unlike_any_other(classes: int) -> None:
    figure = picture(classes)
    looks = [
        [(tuple(dots.get_facecolor()[0]), dots.get_paths()[0].vertices.tobytes()) for dots in axis.collections]
        for axis in figure.axes
    ]
    assert looks[0] == looks[1]
    assert len(set(looks[0])) == classes
    assert len(figure.legends) == (classes <= 20)  # with more, a legend would be larger than the figure


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
    data = pd.DataFrame({"perplexity": [5.0, 5.0]})
    assert note(data, scores_data(rows), dataset="synthetic", seed=0, left_out=left_out).endswith(said)


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
