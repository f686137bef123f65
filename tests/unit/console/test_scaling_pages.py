"""Executors and memory of an endpoint's models over time, as the processes of a gateway decided."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kit.console.client import Client
from kit.console.flights import Project, populated
from kit.slots import answering
from mainspring.console.app import create_app
from mainspring.console.formats import milliseconds, size
from mainspring.core.time import HOUR, MINUTE
from mainspring.operations.scaling import history, scaling
from mainspring.operations.status import endpoint_status
from mainspring.serving.adapters.residency_files import FileDecisions
from mainspring.serving.conformance.simulations import simulated
from mainspring.serving.load.use import CacheUse, read_uses
from mainspring.serving.residency.memory import Decision, What
from unit.console.test_endpoint_pages import charts_of
from unit.console.test_pages import text_of

HERE, MB = "/endpoints/late-arrival/scaling", 1_000_000
OWN, OTHER = "a" * 64, "b" * 64


def decision(at: int, what: What, digest: str = OWN, **fields: Any) -> Decision:
    names = ("late-arrival",) if digest == OWN else ("other",)
    return Decision(at=at, what=what, digest=digest, **{"endpoints": names, "why": "a request", **fields})


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project whose gateway had two processes: one was killed and started again, one goes on."""
    made = populated()
    made.settings = replace(made.settings, state=tmp_path)
    start, bound = made.wall.now() - 4 * HOUR, {"budget": 100 * MB}
    first, second = FileDecisions(tmp_path, "gateway-0"), FileDecisions(tmp_path, "gateway-1")
    first.add(decision(start, What.LOADED, executors=1, nbytes=20 * MB, used=20 * MB, **bound))
    second.add(decision(start + 1, What.LOADED, executors=1, nbytes=20 * MB, used=20 * MB, **bound))
    first.add(
        decision(
            start + HOUR, What.SCALED, executors=3, before=1, nbytes=60 * MB, used=60 * MB, used_before=20 * MB,
            why="requests waited 70 ms, and 3 were refused", delay_ms=70.0, lost=3, busy=0.9, **bound,
        )
    )  # fmt: skip
    second.add(decision(start + 2 * HOUR, What.LOADED, OTHER, executors=1, nbytes=30 * MB, used=50 * MB, **bound))
    again = FileDecisions(tmp_path, "gateway-0")  # after a kill: nobody said that the others are gone
    again.add(decision(start + 3 * HOUR, What.LOADED, executors=1, nbytes=25 * MB, used=25 * MB, **bound))
    second.add(decision(start + 3 * HOUR + MINUTE, What.EVICTED, before=1, nbytes=20 * MB, used=30 * MB, **bound))
    return made


def test_the_state_follows_each_process_and_a_new_run_begins_anew(project: Project) -> None:
    found = FileDecisions(project.settings.state).since(0)
    start = found[0].at
    instants = [start - 1, start + 1, start + HOUR, start + 2 * HOUR, start + 3 * HOUR, start + 4 * HOUR]
    states = history(found, "late-arrival", instants)
    assert states[0] is None
    assert [(each.executors, each.nbytes // MB, each.used // MB, each.budget // MB) for each in states[1:]] == [
        (2, 40, 40, 200),
        (4, 80, 80, 200),
        (4, 80, 110, 200),
        (2, 45, 75, 200),
        (1, 25, 55, 200),
    ]
    ended = [*found, Decision(at=found[-1].at + 1, what=What.ENDED, digest="", why="", process="gateway-0", run="new")]
    assert history(ended, "late-arrival", [ended[-1].at])[0].executors == 0


def test_the_page_draws_it_with_a_mark_for_each_decision(project: Project) -> None:
    client = Client(create_app(project), project.key())
    page = client.page(HERE).text
    executors, memory = charts_of(page)
    assert {1, 2, 4} <= set(executors["lines"][0]["y"])
    assert max(memory["lines"][0]["y"]) == pytest.approx(80)
    assert memory["level"] == {"y": 200.0, "text": "bound"}
    marks = [mark["text"] for mark in executors["marks"]]  # none of another endpoint's model
    assert marks == ["loaded", "loaded", "1 → 3", "loaded", "out of memory"]
    text = text_of(page)
    assert "no gateway of this machine answers" in text
    assert f"1 → 3 {size(20 * MB)} → {size(60 * MB)} {milliseconds(70.0)} 3" in text
    hour = client.page(f"{HERE}?range=24h").text
    assert text_of(hour).count("a request") == text.count("a request")
    document = client.get("/api/endpoints/late-arrival/scaling").json()
    assert [each["what"] for each in document["decisions"]] == ["evicted", "loaded", "scaled", "loaded", "loaded"]
    assert document["decisions"][2]["queue_delay_ms"] == 70.0
    assert client.get("/api/endpoints/nobody/scaling").status_code == 404


def test_the_page_names_the_devices_and_why_one_is_the_processor(tmp_path: Path) -> None:
    made = populated()
    made.settings = replace(made.settings, state=tmp_path)
    numbers = (
        b'mainspring_endpoint_device{endpoint="late-arrival",version="1",asked="auto",device="cuda:0",reason=""} 1.0\n'
        b'mainspring_endpoint_device{endpoint="late-arrival",version="2",asked="cpu",device="cuda:1",reason=""} 1.0\n'
        b'mainspring_endpoint_device{endpoint="other",version="9",asked="cuda",device="cuda:2",reason=""} 1.0\n'
        b'mainspring_endpoint_nodes{endpoint="late-arrival",version="1",provider="CPUExecutionProvider"} 2.0\n'
        b'mainspring_endpoint_nodes{endpoint="late-arrival",version="1",provider="CUDAExecutionProvider"} 7.0\n'
    )
    client = Client(create_app(made), made.key())
    with answering(tmp_path, lambda: numbers), answering(tmp_path, lambda: numbers, slot=1):
        page, document = text_of(client.page(HERE).text), client.get("/api/endpoints/late-arrival/scaling").json()
    assert "Device cuda:0 version 1 runs on cuda:0, 2 of 9 operators on the processor, in 2 processes" in page
    assert "Device cuda:1 version 2 runs on cuda:1, in 2 processes" in page
    assert "cuda:2" not in page
    assert [each["device"] for each in document["endpoints"][0]["devices"]] == ["cuda:0", "cuda:1"]


def test_an_endpoint_on_which_nothing_was_decided_says_how_to_scale_it() -> None:
    made = populated()
    page = text_of(Client(create_app(made), made.key()).page(HERE).text)
    assert "executors=(0, 4)" in page
    assert scaling(made, 0).decisions == []
    assert endpoint_status(made, "late-arrival").executors is None


NUMBERS = b"""
mainspring_model_executors{endpoint="late",version="1"} 2.0
mainspring_model_in_memory{endpoint="late",version="1"} 1.0
mainspring_model_memory_bytes{endpoint="late",version="1"} 100.0
mainspring_model_executors{endpoint="late",version="2"} 0.0
mainspring_model_in_memory{endpoint="late",version="2"} 0.0
mainspring_model_memory_bytes{endpoint="late",version="2"} 7.0
mainspring_models_memory_used_bytes 100.0
mainspring_models_memory_limit_bytes 500.0
# TYPE mainspring_cache_requests_total counter
mainspring_cache_requests_total{endpoint="late",outcome="hit"} 5.0
mainspring_cache_requests_total{endpoint="late",outcome="joined"} 4.0
mainspring_cache_requests_total{endpoint="late",outcome="miss"} 3.0
mainspring_cache_requests_total{endpoint="late",outcome="refused"} 2.0
mainspring_cache_bytes{endpoint="late"} 640.0
mainspring_cache_answers{endpoint="late"} 3.0
# TYPE mainspring_cache_evictions_total counter
mainspring_cache_evictions_total{endpoint="late"} 1.0
"""


def test_numbers_of_processes_add_up() -> None:
    found = read_uses({0: NUMBERS, 1: NUMBERS})
    late = found.endpoints["late"]
    assert (late.executors, late.nbytes, found.used, found.limit) == (4, 200, 200, 1_000)
    assert late.cache == CacheUse(hits=10, shared=8, misses=6, refused=4, evictions=2, answers=6, nbytes=1_280)


def test_the_last_simulation_is_shown_with_the_chosen_policy_marked(project: Project) -> None:
    client = Client(create_app(project), project.key())
    assert "mainspring simulate late-arrival" in client.page(HERE).text
    policies = (((1, 2), 20.0, 73.0), ((4, 4), 8.0, 146.0), ((1, 1), 400.0, 36.5))
    project.simulations.put(simulated("late-arrival", project.wall.now(), *policies))
    page = client.page(HERE).text
    picture = page[page.index('<svg class="load"') :]
    assert picture[: picture.index("</svg>")].count('class="ring"') == 1
    assert (picture.count('class="second" cx'), picture.count('class="alert" cx')) == (2, 1)
    chosen, other = (picture.index(f"executors ({pair}) on this machine") for pair in ("1, 2", "4, 4"))
    assert picture.index('class="ring"') < chosen < other
    assert picture.count("chosen</span>") == 1
    words = text_of(page)
    assert "100/s for 1h" in words
    assert "73 EUR" in words
    assert "<script" not in picture[: picture.index("</section>")]
