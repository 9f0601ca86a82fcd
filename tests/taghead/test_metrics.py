from collections.abc import Callable
from inspect import unwrap
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy import ndarray
from scipy import stats
from sklearn.metrics import accuracy_score, recall_score

from taghead import metrics
from taghead.errors import InputError
from taghead.metrics import mca, mca_interval, top1, wilson

Metric = Callable[[ndarray, ndarray], float]
METRICS: tuple[Metric, ...] = (top1, mca)
NAN = float("nan")


@st.composite
def scored_clips(draw: st.DrawFn) -> tuple[ndarray, ndarray]:
    clips, classes = draw(st.integers(1, 20)), draw(st.integers(1, 6))
    scores = draw(arrays(np.float32, (clips, classes), elements=st.floats(-9, 9, width=32)))
    return scores, draw(arrays(np.int64, clips, elements=st.integers(0, classes - 1)))


@given(scored_clips())
def test_top1_and_mca_are_accuracy_and_macro_recall(clips: tuple[ndarray, ndarray]) -> None:
    scores, labels = clips
    said = scores.argmax(axis=1)
    assert top1(scores, labels) == pytest.approx(accuracy_score(labels, said))
    assert mca(scores, labels) == pytest.approx(recall_score(labels, said, labels=np.unique(labels), average="macro"))


def test_mca_gives_every_class_one_voice_and_top1_every_clip() -> None:
    scores, labels = np.array([[1.0, 0]] * 4), np.array([0, 0, 0, 1])
    assert top1(scores, labels) == 0.75
    assert mca(scores, labels) == 0.5


def test_a_class_without_clips_has_no_voice() -> None:
    assert mca(np.array([[0.0, 0, 1], [1, 0, 0]]), np.array([2, 2])) == 0.5


@pytest.mark.parametrize("metric", METRICS)
def test_a_clip_with_a_score_that_is_no_number_is_wrong(metric: Metric) -> None:
    scores = np.array([[NAN, NAN], [0, NAN], [1, NAN], [1, 0]])
    assert metric(scores, np.array([0, 1, 0, 0])) == pytest.approx(1 / 4 if metric is top1 else 1 / 6)


@pytest.mark.parametrize("metric", METRICS)
def test_of_equal_scores_the_first_class_counts(metric: Metric) -> None:
    scores = np.zeros((1, 3), np.float32)
    assert [metric(scores, np.array([label])) for label in range(3)] == [1, 0, 0]


@pytest.mark.parametrize("metric", METRICS)
def test_an_infinite_score_is_the_highest(metric: Metric) -> None:
    assert metric(np.array([[0, np.inf], [0, -np.inf]]), np.array([1, 0])) == 1


@pytest.mark.parametrize("metric", METRICS)
def test_the_result_is_a_plain_float(metric: Metric) -> None:
    assert type(metric(np.zeros((2, 2), np.float32), np.array([0, 1]))) is float


@pytest.mark.parametrize("metric", METRICS)
def test_no_clips_have_no_score(metric: Metric) -> None:
    with pytest.raises(InputError, match="at least one clip, but got 0 for 0"):
        metric(np.zeros((0, 2)), np.zeros(0, int))


def test_labels_that_are_not_one_a_clip_are_refused() -> None:
    right = unwrap(metrics._right)  # of both metrics; without the check of shapes, as users have it
    with pytest.raises(InputError, match="one label for each of the clips, and at least one clip, but got 3 for 2"):
        right(np.zeros((2, 2)), np.zeros(3, int))


@given(st.integers(1, 500), st.data())
def test_wilson_is_the_interval_of_the_library(n: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, n))
    reference = stats.binomtest(correct, n).proportion_ci(0.95, method="wilson")
    assert wilson(correct, n) == pytest.approx(tuple(reference), abs=1e-12)


def test_wilson_refuses_more_hits_than_clips() -> None:
    with pytest.raises(ValueError, match="must hold, but got correct=11, n=10"):
        wilson(11, 10)


def scores_of(right: ndarray, labels: ndarray, num_classes: int) -> ndarray:
    """Scores that put a clip's own class first where it shall be right, and the next one else."""
    return np.eye(num_classes)[np.where(right, labels, (labels + 1) % num_classes)]


@given(st.integers(2, 6), st.integers(1, 9), st.data())
def test_with_equally_many_clips_a_class_the_interval_is_wilsons(num_classes: int, each: int, data: Any) -> None:
    labels = np.repeat(np.arange(num_classes), each)
    right = np.array(data.draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels))))
    scores = scores_of(right, labels, num_classes)
    assert mca_interval(scores, labels) == pytest.approx(wilson(int(right.sum()), len(labels)), abs=1e-12)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_the_interval_of_mca_holds_the_truth_about_as_often_as_it_says(share: float) -> None:
    random, labels = np.random.default_rng(0), np.repeat(np.arange(5), [40, 20, 10, 5, 3])
    held = 0
    for _ in range(1000):
        low, high = mca_interval(scores_of(random.random(len(labels)) < share, labels, 5), labels)
        held += low <= share <= high
    assert 0.92 <= held / 1000 <= 0.985  # 95 %, less or more what 1,000 draws and few clips leave open


def test_a_class_of_few_clips_widens_the_interval_of_mca() -> None:
    balanced, rare = np.repeat([0, 1], [50, 50]), np.repeat([0, 1], [95, 5])
    widths = [np.diff(mca_interval(scores_of(np.ones(100, bool), labels, 2), labels)) for labels in (balanced, rare)]
    assert widths[1] > 2 * widths[0]
