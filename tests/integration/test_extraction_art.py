"""Attacks of the Adversarial Robustness Toolbox against a gateway: labels give less away than whole answers."""

from __future__ import annotations

import pytest

from environments import PEERS, recorded
from extraction_art import measured
from kit.depth import deep

pytestmark = [deep, pytest.mark.skipif(recorded(PEERS / "art") is None, reason="python bench/peers.py art")]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_labels_give_less_of_a_model_than_whole_answers() -> None:
    found = measured(0)
    for queries in (50, 200, 800):
        whole, labels = (found[f"CopycatCNN, {queries} queries, {shown}"] for shown in ("all", "labels"))
        assert labels < whole
    assert found["KnockoffNets, 800 queries, labels"] > 0.9  # natural rows: only a quota helps
