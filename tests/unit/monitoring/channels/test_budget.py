import numpy as np
import pytest

from mainspring.monitoring.channels.budget import FEWEST_SCORES, thresholds

pytestmark = pytest.mark.slow


def rate(scores: np.ndarray, share: float, first: int = 200) -> float:
    limits = thresholds(scores, np.ones(len(scores), bool), share)
    return float((scores > limits)[first:].mean())


@pytest.mark.parametrize("share", [1 / 7, 0.05])
@pytest.mark.parametrize("drift", [0.0, 5e-4, -5e-4], ids=["steady", "rising", "falling"])
def test_the_share_of_alarms_is_the_budget(share: float, drift: float) -> None:
    rng = np.random.default_rng(3)
    scores = (3.0 + rng.exponential(size=2_000)) * np.exp(drift * np.arange(2_000))
    assert rate(scores, share) == pytest.approx(share, abs=0.02)


def test_a_regime_of_larger_scores_is_followed() -> None:
    rng = np.random.default_rng(4)
    scores = np.concatenate([rng.exponential(size=600), 10.0 * rng.exponential(size=1_400)])
    assert rate(scores, 1 / 7, first=700) == pytest.approx(1 / 7, abs=0.03)


def test_few_scores_have_no_threshold() -> None:
    limits = thresholds(np.ones(FEWEST_SCORES + 1), np.ones(FEWEST_SCORES + 1, bool), 0.1)
    assert np.isinf(limits[:FEWEST_SCORES]).all()
    assert np.isfinite(limits[FEWEST_SCORES])


def test_incidents_and_windows_without_score_move_nothing() -> None:
    rng = np.random.default_rng(5)
    scores = rng.exponential(size=100)
    usual = np.ones(100, bool)
    plain = thresholds(scores, usual, 0.1)[-1]
    longer = np.concatenate([scores[:60], [1e6, np.nan], scores[60:]])
    kept = np.concatenate([usual[:60], [False, True], usual[60:]])
    assert thresholds(longer, kept, 0.1)[-1] == plain


def test_a_record_is_an_alarm_after_false_ones_too() -> None:
    rng = np.random.default_rng(6)
    scores = np.concatenate([rng.exponential(size=100), [20.0, 30.0, 40.0, 50.0, 60.0, 70.0]])
    limits = thresholds(scores, np.ones(len(scores), bool), 1 / 7)
    assert (scores > limits)[100:].all()


def test_a_fault_that_lasts_is_an_alarm_on_each_day_though_the_budget_is_spent() -> None:
    rng = np.random.default_rng(7)
    scores = np.concatenate([rng.exponential(size=100), np.full(6, 50.0)])
    limits = thresholds(scores, np.ones(len(scores), bool), 1 / 7)
    assert (scores > limits)[100:].all()
