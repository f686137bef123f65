"""Ranks of one machine are started, and none more once they are told to stop."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from kit.later import later

later("torch")
pytestmark = pytest.mark.slow


def work(_request: str, _tell: object) -> None:
    """Work as a rank, which does not end."""
    time.sleep(600)


def test_no_further_rank_is_started_after_a_stop(tmp_path: Path) -> None:
    from mainspring.training.distributed.ranks import Ranks

    (tmp_path / "request.json").write_text("{}")
    ranks = Ranks(__name__, tmp_path, 1, lambda _stage, _share: None)
    try:
        ranks.start(dict.fromkeys(range(4), 0), {}, stop=lambda: len(ranks.running) == 2)
        assert ranks.running == [0, 1]
    finally:
        ranks.kill_all()
    assert ranks.running == []
