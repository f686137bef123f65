"""Executors are decided on again after a look that failed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from mainspring.serving.plane import scaler
from mainspring.serving.plane.live import Served


def test_a_look_that_fails_is_logged_and_the_next_one_comes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(scaler, "TICK_S", 0.001)
    looks: list[int] = []

    async def scaling() -> None:
        again = asyncio.Event()

        def served() -> Mapping[str, Served]:
            looks.append(len(looks))
            if len(looks) == 1:
                raise RuntimeError("a route that leaves")
            again.set()
            return {}

        each = scaler.Scaler(served)
        each.start()
        await asyncio.wait_for(again.wait(), 5)
        await each.stop()

    asyncio.run(scaling())
    assert "a route that leaves" in caplog.text
