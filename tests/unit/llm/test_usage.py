"""Usage of language models: what is counted of each way in which an answer ends, and the table that outlives it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from kit.scripted_upstreams import ScriptedUpstream, Step, asked, call
from kit.serving import NOW
from kit.virtual_time import now, run
from mainspring.core.errors import StorageFull
from mainspring.core.time import DAY, MINUTE, SECOND, ManualClock
from mainspring.llm.answering import Shared, assemble
from mainspring.llm.declaring import LanguageModel, TokenPrice, UpstreamModel
from mainspring.llm.limits import AnswerCache
from mainspring.llm.model import EmbeddingsRequest, Sampling, UpstreamError
from mainspring.llm.usage import Usages, Watched
from mainspring.llm.usage_table import UsageTable, rows
from mainspring.security.model import KeyScope, Principal
from mainspring.serving.protocol.asked import Outside

MODEL = LanguageModel(
    "m", upstreams=[UpstreamModel("a", "tiny", price=TokenPrice(prompt=1.0, completion=10.0))], cache=AnswerCache()
)
ANA = Principal("k1", "test", frozenset(KeyScope), groups=frozenset({"blue", "red"}))
BOB = Principal("k2", "test", frozenset(KeyScope))


def exposed(of: Usages) -> dict[str, float]:
    class Families(Collector):
        def collect(self) -> Any:
            yield from of.metrics()

    registry = CollectorRegistry()
    registry.register(Families())
    lines = [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def used(of: Usages, *steps: Step) -> None:
    """Ask for a stream of each step, and for two whole answers of which the second is a cached one."""

    async def main() -> None:
        left = iter(steps)
        upstream: Any = ScriptedUpstream("a", lambda: next(left, Step()))
        watched = Watched(assemble(MODEL, {"a": upstream}, Shared(now=now)), "m", of, now)
        for _ in steps:
            try:
                async for _batch in watched.stream(asked(), call(caller=ANA)):
                    pass
            except UpstreamError:
                pass
        for _ in range(2):
            await watched.chat(asked(sampling=Sampling(temperature=0.0)), call(caller=BOB))
        events = watched.stream(asked(), call(caller=BOB))
        await anext(events)
        await events.aclose()
        await asyncio.sleep(1)

    run(main())


def test_each_end_is_counted_as_what_it_is(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    of = Usages(tmp_path / "usage", clock)
    used(of, Step(usage=None), Step(), Step(fails="failed"), Step(fails="broken", after=2))
    metrics = exposed(of)
    outcomes = {
        name.rpartition("outcome=")[2].strip('"}').partition('"')[0]: value
        for name, value in metrics.items()
        if name.startswith("mainspring_llm_requests_total") and 'upstream="a"' in name
    }
    assert outcomes == {"answered": 3, "failed": 1, "left": 1}
    assert metrics['mainspring_llm_requests_total{model="m",outcome="failed",upstream=""}'] == 1
    assert metrics['mainspring_llm_requests_total{model="m",outcome="exact",upstream=""}'] == 1
    assert metrics['mainspring_llm_first_token_seconds_count{model="m",upstream="a"}'] == 3
    tokens = sum(value for name, value in metrics.items() if name.startswith("mainspring_llm_tokens_total"))
    asyncio.run(of.flush())
    table = list(rows(tmp_path / "usage", NOW))
    assert {row.key: (row.teams, row.day) for row in table} == {
        "k1": (("blue", "red"), NOW - NOW % DAY), "k2": ((), NOW - NOW % DAY),
    }  # fmt: skip
    assert sum(row.used.prompt + row.used.completion for row in table) == tokens
    assert sum(row.used.cached for row in table) == 1
    assert sum(row.used.counted for row in table) == 3  # told none, broke off, left
    assert {row.key: (bool(row.used.streamed), bool(row.used.answer_us)) for row in table} == {
        "k1": (True, True), "k2": (False, False),
    }, "a whole answer has no tokens a second"  # fmt: skip
    assert sum(row.used.micros for row in table) == pytest.approx(
        1e6 * metrics['mainspring_llm_cost_total{model="m",upstream="a"}']
    )
    assert b"hello" not in b"".join(path.read_bytes() for path in (tmp_path / "usage").iterdir())


def test_the_table_is_read_by_day_past_lines_that_a_kill_cut_off(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    for day in range(3):
        of = Usages(tmp_path, clock)
        used(of, Step())
        asyncio.run(of.flush())
        asyncio.run(of.flush())  # nothing is left
        of.close()
        with next(tmp_path.glob("*.jsonl")).open("ab") as file:
            file.write(b'{"day": 1, "key": "cut')
        clock.advance(DAY)
        assert len(list(rows(tmp_path, NOW + day * DAY))) == 3
    assert len(list(rows(tmp_path, 0))) == 9


def test_what_cannot_be_written_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock(NOW)
    of = Usages(tmp_path, clock)
    used(of, Step())

    def full(*_: object, **_more: object) -> None:
        raise StorageFull("There is no space.")

    with monkeypatch.context() as patched:
        patched.setattr(UsageTable, "write", full)
        for _ in range(2):
            with pytest.raises(StorageFull):
                asyncio.run(of.flush())
            clock.advance(MINUTE)
    used(of)
    asyncio.run(of.flush())
    assert sum(row.used.requests for row in rows(tmp_path, 0)) == 5


def test_sums_of_a_minute_are_written_in_place_and_those_of_before_stay(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    of, other = Usages(tmp_path, clock), Usages(tmp_path, clock)
    for second in range(1, 131):
        for each in (of, other):
            used(each)
            asyncio.run(each.flush())
        assert sum(row.used.requests for row in rows(tmp_path, 0)) == 4 * second
        clock.advance(SECOND)
    files = sorted(tmp_path.glob("*.jsonl"))
    assert len(files) == 2  # one a process
    assert len(list(rows(tmp_path, 0))) == 2 * 2 * 3  # of two processes and upstreams, in three minutes
    of.close()
    other.close()


def test_a_span_says_what_was_used_and_nothing_of_what_was_said() -> None:
    spans: list[Outside] = []

    async def main() -> None:
        upstream: Any = ScriptedUpstream("a", lambda: Step(events=2))
        of = Usages(None, ManualClock(NOW))
        watched = Watched(assemble(MODEL, {"a": upstream}, Shared(now=now)), "m", of, now, spans.append)
        async for _ in watched.stream(asked(), call(caller=ANA)):
            pass
        with pytest.raises(NotImplementedError):
            await watched.embed(EmbeddingsRequest(model="m", inputs=("hello",)), call(caller=ANA))

    run(main())
    stream, embeddings = spans
    assert (stream.name, stream.failed, embeddings.name, embeddings.failed) == ("chat m", "", "embeddings m", "failed")
    assert stream.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m",
        "gen_ai.provider.name": "a",
        "gen_ai.response.model": "tiny",
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 3,
        "mainspring.llm.attempts": 1,
        "mainspring.llm.queued_us": 0,
        "mainspring.llm.cost": 35e-6,
        "mainspring.llm.first_token_us": 10_000,
    }
    assert "hello" not in str(spans)
