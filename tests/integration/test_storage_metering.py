"""Metering of storage: files of this machine and objects of a bucket, which several machines look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest

from kit.object_store import s3_server, s3_url
from mainspring.core.errors import NotFound
from mainspring.core.object_store_url import open_store
from mainspring.core.settings import Url
from mainspring.core.time import HOUR, ManualClock, parse_instant
from mainspring.operations.cost.reporting import report
from mainspring.operations.cost.storage import StorageMeter
from mainspring.project import Project
from mainspring.project.settings import load_settings

__all__ = ["s3_server", "s3_url"]
NOW = parse_instant("2026-02-03T10:00:00Z")
MIB = 1 << 20
_PRICES = '[profiles.local.prices]\nmachine = "0.10 EUR"\nstorage = { disk = "0.05 EUR", object = "0.02 EUR" }\n'


@pytest.fixture
def wall() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def project(tmp_path: Path, s3_url: Url, wall: ManualClock) -> Iterator[Project]:
    (tmp_path / "mainspring.toml").write_text(f'name = "shop"\nprofile = "local"\n{_PRICES}')
    places = {"catalog": "memory://", "lake": below(s3_url, "lake").text, "blobs": below(s3_url, "blobs").text}
    made = Project(load_settings(tmp_path, None, places, environment={}), wall=wall)
    made.settings.state.mkdir(parents=True)
    yield made
    made.close()


def below(url: Url, name: str) -> Url:
    return Url(url.text.replace("/some/prefix", f"/some/prefix/{name}"))


def stored(project: Project) -> dict[tuple[str, str, str], int]:
    return {
        (each.machine, each.subject.id, each.subject.version): each.amount
        for each in project.usage.read(0, NOW * 2)
        if each.measure == "storage"
    }


def test_a_bucket_is_metered_once_by_table_and_a_machine_beside_it(
    project: Project, s3_url: Url, wall: ManualClock
) -> None:
    lake, blobs = (open_store(below(s3_url, name)) for name in ("lake", "blobs"))
    for name, size in {"orders/a": MIB, "orders/_delta_log/0.json": 10, "visits/b/c": 2 * MIB, "stray": 7}.items():
        obstore.put(lake, name, bytes(size))
    for number in range(7):
        obstore.put(blobs, f"whole/{number}", b"12345")
    runs = project.settings.tracking.path
    runs.mkdir(parents=True)
    (runs / "run").write_bytes(bytes(MIB))
    meters = [StorageMeter(project), StorageMeter(project)]
    meters[0].look()
    assert stored(project) == {}, "of before the first look nothing is known"
    wall.advance(HOUR)
    for each in meters:
        each.look()

    name = f"s3://{s3_url.text.split('/')[2]}"
    found = stored(project)
    ours = {key: amount for key, amount in found.items() if key[0] == name}
    assert ours == {
        (name, "lake/orders", "object"): MIB + 10,
        (name, "lake/visits", "object"): 2 * MIB,
        (name, "lake", "object"): 7,
        (name, "blobs", "object"): 35,
    }
    [disk] = [amount for (_, id, kind), amount in found.items() if (id, kind) == ("tracking", "disk")]
    assert MIB <= disk < 1.1 * MIB
    [table] = [each for each in report(project, "table", since=NOW).lines if each.name == "lake/visits"]
    assert table.cost == pytest.approx(0.02 * 2 / 1024 / 730, abs=1e-9)  # whole billionths


def test_a_bucket_that_is_gone_is_told_and_hides_nothing_else(project: Project, wall: ManualClock) -> None:
    """Deleted by hand in the provider's console: the worker's log says so each hour."""
    other = Url(project.settings.lake.text.replace("s3://bundles-", "s3://gone-"))
    object.__setattr__(project.settings, "lake", other)
    obstore.put(open_store(project.settings.blobs), "whole/1", b"12345")
    meter = StorageMeter(project)
    meter.look()
    for _ in range(2):
        wall.advance(HOUR)
        with pytest.raises(NotFound, match=r"no bucket at s3://gone-"):
            meter.look()
    assert [amount for (_, id, _), amount in stored(project).items() if id == "blobs"] == [10]
