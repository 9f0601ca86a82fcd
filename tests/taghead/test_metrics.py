from collections.abc import Callable
from inspect import unwrap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy import ndarray
from sklearn.metrics import accuracy_score, recall_score

from taghead import metrics
from taghead.errors import InputError
from taghead.metrics import mca, top1

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
