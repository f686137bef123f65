"""Energy: from what was recorded, weighted by time."""

from __future__ import annotations

import pytest

from mainspring.governance.energy import CPU, MEMORY, Points, energy_wh

SECOND = 1_000_000


def recorded(**histories: Points) -> tuple[dict[str, float], dict[str, Points]]:
    names = {"cpu": CPU, "memory": MEMORY, "gpu": "system/gpu_0_power_usage_watts"}
    found = {names[name]: points for name, points in histories.items()}
    return {name: points[-1][0] for name, points in found.items()}, found


def test_two_processors_for_an_hour_are_24_watt_hours() -> None:
    metrics, histories = recorded(cpu=[(200.0, 0, 0)])
    energy, method = energy_wh(metrics, histories.__getitem__, 3600.0)
    assert energy == pytest.approx(24.0)
    assert "1 sample" in method
    assert "no GPU" in method


def test_a_gb_and_a_gpu_are_added() -> None:
    metrics, histories = recorded(cpu=[(0.0, 0, 0)], memory=[(2000.0, 0, 0)], gpu=[(300.0, 0, 0)])
    energy, method = energy_wh(metrics, histories.__getitem__, 3600.0)
    assert energy == pytest.approx(2 * 0.3725 + 300)
    assert "1 GPU " in method


def test_a_sample_counts_for_the_time_before_it() -> None:
    """10 s at one processor, then 30 s idle; in any order."""
    points = [(0.0, 2, 40 * SECOND), (100.0, 0, 0), (100.0, 1, 5 * SECOND), (0.0, 3, 35 * SECOND)]
    metrics, histories = recorded(cpu=points)
    # The first stands for as long as the second: 5 + 5 s at 1, 30 + 5 s at 0.
    assert energy_wh(metrics, histories.__getitem__, 3600.0)[0] == pytest.approx(12 * 10 / 45)


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_without_samples_or_time_nothing_is_said(seconds: float) -> None:
    assert energy_wh({}, {}.__getitem__, 10.0) == (0.0, "")
    metrics, histories = recorded(cpu=[(100.0, 0, 0)])
    assert energy_wh(metrics, histories.__getitem__, seconds) == (0.0, "")
