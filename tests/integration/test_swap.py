"""A change of version or weights reaches every process, atomically, without a lost request; what is broken does not."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.depth import deep, examples
from kit.fleet import BODY, INFER, Fleet
from kit.serving import bundle, golden, route
from kit.waiting import wait_until
from mainspring.registry.bundles import seal
from mainspring.serving.model import Arm


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path, forked=True)
    fleet.publish("1")
    with fleet.up():
        yield fleet


def test_many_swaps_and_a_kill_lose_only_what_the_killed_one_was_answering(fleet: Fleet) -> None:
    """Promotions and rollbacks under steady load; `Fleet.load` checks each answer against the version that it names."""
    chance, swaps = random.Random(7), examples(gate=8, deep=20)
    with fleet.load() as load:
        load.until_answered(50)
        for number in range(swaps):
            version = str(number // 2 + 2) if number % 2 == 0 else "1"  # a new one, and back
            fleet.publish(version)
            if number == swaps // 2:
                killed, at = fleet.kill("gateway-1"), time.monotonic()
            fleet.until_all_serve(version)
            load.until_answered(chance.randrange(5, 30))
        fleet.until_replaced("gateway-1", killed)
        load.until_answered(50)
    assert len(load.failures) <= 4, load.failures
    assert len({each.thread for each in load.failures}) == len(load.failures)
    assert all(at <= each.at <= at + 30 for each in load.failures)
    assert {each.document["model_version"] for each in load.answered} == {
        str(version) for version in range(1, swaps // 2 + 2)
    }


def test_a_change_is_seen_by_each_caller_once(fleet: Fleet) -> None:
    """Where every process has the new version, nobody is answered by the old one again."""
    with fleet.load() as load:
        load.until_answered(50)
        fleet.publish("2")
        fleet.until_all_serve("2")
        swapped = time.monotonic()
        load.until_answered(200)
    assert load.failures == []
    late = [each for each in load.answered if each.document["model_version"] == "1" and each.at - each.took_s > swapped]
    assert late == []


@deep
def test_weights_change_under_load(fleet: Fleet) -> None:
    with fleet.load() as load:
        for weights in ({"1": 1.0, "2": 1.0}, {"1": 1.0, "2": 9.0}, {"1": 0.0, "2": 1.0}):
            fleet.publish("1", "2", weights=weights)
            fleet.until_all_serve("1", "2")
            load.until_answered(100)
    assert load.failures == []
    path = INFER.replace("/infer", "/versions/1/infer")
    assert fleet.ask("POST", path, BODY).status == 200  # by name also without weight


def test_what_cannot_be_loaded_leaves_what_served_before(fleet: Fleet) -> None:
    broken = bundle(3.0, golden_json=golden(0.0))  # it does not answer what it must
    sealed = seal(broken.manifest, broken.files, fleet.project.signing_key)
    fleet.project.bundles.save(sealed)
    with fleet.load() as load:
        load.until_answered(50)
        fleet.project.routes.publish([route(Arm("9", sealed.digest))])
        wait_until(
            lambda: all(f'mainspring_refused_versions{{slot="{slot}"}} 1.0' in fleet.scrape() for slot in (0, 1)),
            "both to refuse it",
        )
        load.until_answered(50)
        assert fleet.serving() == {"0": {"1"}, "1": {"1"}}
        assert fleet.ask("GET", "/v2/health/ready").status == 200
        fleet.publish("2")  # and a good one goes live as ever
        fleet.until_all_serve("2")
        load.until_answered(50)
    assert load.failures == []
    log = (fleet.project.settings.state / "logs" / "gateway.log").read_text()
    assert f"Bundle {sealed.digest[:12]} is not served" in log


def test_a_process_that_starts_into_a_broken_table_says_so_and_recovers(fleet: Fleet) -> None:
    broken = bundle(3.0, golden_json=golden(0.0))
    sealed = seal(broken.manifest, broken.files, fleet.project.signing_key)
    fleet.project.bundles.save(sealed)
    fleet.project.routes.publish([route(Arm("9", sealed.digest))])
    old = fleet.kill("gateway-1")
    fleet.until_replaced("gateway-1", old)
    up = 'mainspring_gateway_worker_up{slot="1"} 1'
    text = wait_until(lambda: up in (found := fleet.scrape()) and found, "it to answer")
    assert 'mainspring_gateway_ready{slot="1"} 0.0' in text  # it never served anything else
    assert 'mainspring_gateway_ready{slot="0"} 1.0' in text
    assert all(fleet.ask("POST", INFER, BODY).status == 200 for _ in range(30))  # so the other is asked
    fleet.publish("2")
    fleet.until_all_serve("2")
    before = fleet.answered()
    wait_until(
        lambda: fleet.ask("POST", INFER, BODY) and fleet.answered()["1"] > before.get("1", 0), "it to be asked again"
    )
