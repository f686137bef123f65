"""Ranks of one machine: none is started after a stop, and none computes on the GPU of another."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from kit.later import later
from mainspring.core.errors import Invalid

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


def test_a_network_on_the_gpu_of_another_rank_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from mainspring.training.loop.world import joined

    for name, value in (("RANK", "3"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(Invalid, match=r"rank 3 is on cuda:0, and number 1 on its machine has cuda:1\..*LOCAL_RANK"):
        joined(torch.device("cuda", 0))
