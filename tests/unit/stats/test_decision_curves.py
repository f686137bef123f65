"""Curves of decisions: equal to scikit-learn's, and exact at every threshold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from mainspring.core.errors import InvalidData
from mainspring.stats.decision_curves import calibration_bins, operating_points

ROWS = st.lists(st.tuples(st.booleans(), st.floats(0, 1, width=32)), min_size=1, max_size=60)


@given(ROWS, st.floats(0, 1))
def test_the_confusion_is_that_of_the_threshold_it_names(rows, wanted):
    y, score = (np.array(each) for each in zip(*rows, strict=True))
    found = operating_points(y, score, also=wanted).at(wanted)
    assert found.threshold == wanted
    negative, positive = confusion_matrix(y, score >= wanted, labels=[False, True]).tolist()
    assert [found.true_negatives, found.false_positives] == negative
    assert [found.false_negatives, found.true_positives] == positive


def test_the_areas_are_those_of_all_rows():
    draw = np.random.default_rng(0)
    y = draw.random(5_000) < 0.3
    score = 1 / (1 + np.exp(-draw.normal(y * 1.2, 1)))
    points = operating_points(y, score)
    x, rate = points.roc
    assert (x[0], rate[0], x[-1], rate[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(rate, x) == pytest.approx(roc_auc_score(y, score), abs=2e-4)
    recall, precision = points.precision_recall
    assert (np.diff(recall) >= 0).all()
    area = (np.diff(recall, prepend=0) * precision).sum()
    assert area == pytest.approx(average_precision_score(y, score), abs=2e-3)


def test_of_one_class_and_of_no_flagged_row_nothing_is_invented():
    found = operating_points([0, 0], [0.2, 0.4]).at(0.9)
    assert np.isnan([found.precision, found.recall]).all()
    assert (found.flagged, found.specificity) == (0.0, 1.0)
    for rows in ([], [float("nan")]):
        with pytest.raises(InvalidData):
            operating_points([0] * len(rows), rows)


@given(ROWS)
def test_calibration_bins_hold_every_row_once(rows):
    y, score = (np.array(each) for each in zip(*rows, strict=True))
    bins = calibration_bins(y, score)
    assert sum(each.rows for each in bins) == len(rows)
    assert sum(each.rate * each.rows for each in bins) == pytest.approx(y.sum())
    assert all(each.low <= each.rate + 1e-12 and each.rate <= each.high + 1e-12 for each in bins)
    assert [each.score for each in bins] == sorted(each.score for each in bins)


def test_the_interval_holds_the_true_rate():
    draw = np.random.default_rng(1)
    held = total = 0
    for _ in range(60):
        score = draw.random(600)
        for each in calibration_bins(draw.random(600) < score, score):
            held, total = held + (each.low <= each.score <= each.high), total + 1
    assert 0.92 < held / total < 0.98
