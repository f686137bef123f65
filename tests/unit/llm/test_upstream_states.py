"""Health of upstreams as the gateway's processes tell it, and as the console reads it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

from kit.console.flights import Project
from kit.scripted_upstreams import ScriptedUpstream, Step, asked, call
from mainspring.core.circuit_breaker import BreakerRule
from mainspring.core.errors import MainspringError
from mainspring.llm.answering import Shared, assemble
from mainspring.llm.declaring import LanguageModel, UpstreamModel
from mainspring.llm.limits import Fallback
from mainspring.llm.usage import Usages
from mainspring.operations.upstream_health import GuardActs, UpstreamHealth, guard_acts, upstream_health
from mainspring.serving.plane.slots import Slots, folder


class Exposed:
    """The numbers of one process, as a registry collects them."""

    def __init__(self, shared: Shared, usages: Usages) -> None:
        self._shared, self._usages = shared, usages

    def collect(self) -> list[Metric]:
        return [*self._shared.states.metrics(["m"]), *self._usages.metrics()]

    def text(self) -> bytes:
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)


def test_the_health_of_upstreams_is_that_of_all_processes(tmp_path: Path) -> None:
    model = LanguageModel(
        "m",
        upstreams=[UpstreamModel("a", "tiny", capacity=100_000), UpstreamModel("b", "tiny")],
        fallback=Fallback(breaker=BreakerRule(least=1)),
    )
    project = Project(replace(Project().settings, root=tmp_path, state=tmp_path / "state"))
    assert upstream_health(project) == {}

    async def main() -> None:
        well, ill = Shared(), Shared()
        for shared, fails in ((well, ""), (ill, "failed")):
            step = Step(first_s=0.0, fails=fails)
            upstreams: Any = {"a": ScriptedUpstream("a", lambda step=step: step), "b": ScriptedUpstream("b", Step)}
            with suppress(MainspringError):
                await assemble(model, upstreams, shared).chat(asked(), call())
        slots = [Slots(folder(project.settings.state), number, 2) for number in range(2)]
        for each, shared in zip(slots, (well, ill), strict=True):
            usages, told = Usages(None, project.wall), call()
            told.outcome.guarded["secret", "redact"] = 2
            usages.note("m", told, told.begun + 1)
            await each.start(Exposed(shared, usages).text, lambda: True)
        found = await asyncio.to_thread(upstream_health, project)
        assert found["m", "a"] == UpstreamHealth(up=1, resting=1)
        assert (found["m", "a"].state, found["m", "b"].state) == ("partly resting", "up")
        assert await asyncio.to_thread(guard_acts, project, "m") == [GuardActs("secret", "redact", 4)]
        assert await asyncio.to_thread(guard_acts, project, "other") == []
        for each in slots:
            await each.stop()

    asyncio.run(main())


def test_the_state_of_an_upstream_is_a_word() -> None:
    words = {UpstreamHealth(up=2): "up", UpstreamHealth(resting=1): "resting", UpstreamHealth(probing=1): "probed"}
    assert {each.state for each in words} == set(words.values())
