"""What devices predicted offline reaches the prediction log through the console, each record once."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

import mainspring as ms
from kit import serving
from kit.console import shop
from kit.console.flights import Project, declared
from kit.depth import examples
from kit.edge_packages import NAME, package
from kit.waiting import free_port
from mainspring.console.app import create_app
from mainspring.console.server import serve
from mainspring.core.errors import Denied, Invalid
from mainspring.core.locks import MemoryLocks
from mainspring.core.settings import Address
from mainspring.deploy.edge.repository import Repository
from mainspring.deploy.fleet.records import Intake
from mainspring.features.definitions import dump
from mainspring.operations.edge.fleet import device, register, take_records
from mainspring.registry.bundles import FEATURES, seal
from mainspring.registry.model import Bundle
from mainspring_edge.errors import Refused
from mainspring_edge.queue import Queue
from mainspring_edge.updates import Unreachable
from mainspring_edge.upload import Uploads

HOUR_US = 3_600_000_000


@dataclass
class World:
    """A project with a published package, and one device of it."""

    folder: Path
    key: Ed25519PrivateKey
    project: Project

    def record(self, number: int, **changed: Any) -> dict[str, Any]:
        at = self.project.wall.now()
        base = {
            "kind": "prediction", "id": f"{number:032x}", "boot": "b1", "mono_us": number * 1_000_000, "at": at,
            "version": 1, "row": {"x": float(number)}, "features": {"x": float(number)},
            "outputs": {"sum": float(number)}, "latency_us": 900, "share": 1.0,
        }  # fmt: skip
        return {**base, **changed}

    def body(self, records: list[tuple[int, dict[str, Any]]], **changed: Any) -> bytes:
        base = {
            "project": self.project.settings.project, "device": "depot-1", "queue": "q1", "boot": "b1",
            "mono_us": 1_000_000_000, "at": self.project.wall.now(), "records": records,
        }  # fmt: skip
        return json.dumps({**base, **changed}).encode()

    def send(self, body: bytes, device: str = "depot-1") -> int:
        return take_records(self.project, device, body, self.key.sign(body).hex()).until

    def logged(self) -> dict[str, Any]:
        found = self.project.predictions.recent(NAME, 10_000)
        assert len({each.id for each in found}) == len(found), "each record once"
        return {each.id: each for each in found}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    folder = tmp_path_factory.mktemp("published")
    now = Project().wall.now()
    made = Repository(folder / "repository", folder / "keys", MemoryLocks(), lambda: now)
    made.publish(package(folder / "packages", 1))
    return made


@contextmanager
def a_world(folder: Path, repository: Repository, **parts: Any) -> Iterator[World]:
    project, key = Project(packages=repository, **parts), Ed25519PrivateKey.generate()
    register(project, "depot-1", NAME, key.public_key().public_bytes_raw().hex())
    try:
        yield World(folder, key, project)
    finally:
        project.close()


@pytest.fixture
def world(tmp_path: Path, published: Repository) -> Iterator[World]:
    with a_world(tmp_path, published) as made:
        yield made


def test_an_uploaded_prediction_is_in_the_log_with_its_provenance(world: World) -> None:
    assert world.send(world.body([(1, world.record(1))])) == 1
    one = world.logged()[f"{1:032x}"]
    assert (one.endpoint, one.version, one.principal) == (NAME, "1", "device:depot-1")
    assert one.digest == f"{1:064x}"
    assert one.at == world.project.wall.now() - 999_000_000, "dated by how long ago it was made"
    assert (device(world.project, "depot-1").uploaded, device(world.project, "depot-1").refused) == (1, 0)


@given(
    splits=st.lists(st.tuples(st.integers(0, 20), st.integers(1, 12), st.booleans()), min_size=1, max_size=10),
)
@settings(max_examples=examples(gate=15, deep=300), deadline=None)
def test_deliveries_that_repeat_overlap_or_break_are_kept_once(
    tmp_path_factory: Any, published: Repository, splits: list[tuple[int, int, bool]]
) -> None:
    with a_world(tmp_path_factory.mktemp("world"), published) as world:
        expected: set[str] = set()
        for first, count, breaks in splits:
            records = [(number, world.record(number)) for number in range(first + 1, first + count + 1)]
            before = world.project.fleet.upload("depot-1", "q1").until
            expected |= {record["id"] for number, record in records if number > before}
            if breaks:
                _broken(world, world.body(records))  # logged, but not noted as taken: it comes again
            world.send(world.body(records))
        assert set(world.logged()) == expected


def _broken(world: World, body: bytes) -> None:
    """Take a delivery whose process dies after the log has it."""

    class Died(Exception):
        pass

    class Dying:
        def __getattr__(self, name: str) -> Any:
            return getattr(world.project.fleet, name)

        def take(self, upload: Any, *sketches: Any) -> None:
            if upload.until == upload.begun and upload.last_at:
                raise Died
            world.project.fleet.take(upload, *sketches)

    project = world.project
    releases = {each.version: each for each in project.packages.releases()}
    intake = Intake(
        project.settings.project, Dying(), project.prediction_log, project.predictions,  # type: ignore[arg-type]
        lambda _: releases, project.wall.now,
    )  # fmt: skip
    with suppress(Died):
        intake.take("depot-1", body, world.key.sign(body).hex())


def test_records_of_a_wrong_clock_are_refused_and_counted(world: World) -> None:
    now, wrong = world.project.wall.now(), []
    for number, at in enumerate((0, now - 900 * 24 * HOUR_US, now + HOUR_US), 1):
        wrong.append((number, world.record(number, boot="earlier", at=at)))
    right = (4, world.record(4, boot="earlier", at=now))
    present = (5, world.record(5, at=0))  # of the present start: its clock does not matter
    assert world.send(world.body([*wrong, right, present])) == 5
    assert set(world.logged()) == {f"{4:032x}", f"{5:032x}"}
    shown = device(world.project, "depot-1")
    assert (shown.uploaded, shown.refused) == (2, 3)


def test_a_profile_is_kept_beside_the_device(world: World) -> None:
    columns = {"x": {"count": 3, "nulls": 0, "mean": 1.0, "min": 0.0, "max": 2.0}}
    profile = world.record(1, kind="profile", rows=3, errors=0, columns=columns, p50_us=1, p99_us=2)
    for name in ("row", "outputs", "latency_us", "share", "features"):
        del profile[name]
    world.send(world.body([(1, profile)]))
    kept = world.project.fleet.uploads()[0].profile
    assert kept is not None
    assert (kept["rows"], kept["columns"]) == (3, {}), "without the bundle nobody can tell which identify a person"
    assert world.logged() == {}


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> tuple[Repository, Bundle]:
    """A repository with a package of a model that reads the column `email`, marked `pii`, and the model's bundle."""
    folder, now = tmp_path_factory.mktemp("shop"), Project().wall.now()
    kit = serving.bundle()
    files = {**kit.files, FEATURES: dump(shop.fraud.features, shop.checkouts)}
    bundle = seal(kit.manifest, files, Project().signing_key)
    made = Repository(folder / "repository", folder / "keys", MemoryLocks(), lambda: now)
    made.publish(package(folder / "packages", 1, about={"bundle": bundle.digest, "endpoint": "checkout"}))
    return made, bundle


@pytest.mark.parametrize("treatment", ["encrypt", "leave out"])
def test_what_identifies_a_person_is_logged_as_the_gateway_logs_it(
    tmp_path: Path, shops: tuple[Repository, Bundle], treatment: Any
) -> None:
    repository, bundle = shops
    who = {"Orders.email": "ana@example.org"}
    checkout = ms.Endpoint("checkout", model="fraud@champion", log=ms.Log(personal=treatment))
    with a_world(tmp_path, repository, definitions=declared(endpoints={"checkout": checkout})) as world:
        world.project.bundles.save(bundle)
        features = {**who, "Basket.share": 0.5}
        summary = {name: {"count": 1, "nulls": 0} for name in (*features, "probability")}
        profile = {"kind": "profile", "id": f"{2:032x}", "boot": "b1", "mono_us": 1, "at": 0, "version": 1,
                   "rows": 1, "errors": 0, "columns": summary}  # fmt: skip
        world.send(world.body([(1, world.record(1, row={"value": 9.0, **who}, features=features)), (2, profile)]))
        (one,) = world.project.predictions.recent("checkout", 10)
        assert "ana" not in repr(one)
        assert (one.request, one.features) == ({"value": 9.0}, {"Basket.share": 0.5})
        assert one.withheld == {"encrypt": "encrypted", "leave out": "left out"}[treatment]
        if treatment == "encrypt":
            shown = world.project.predictions.revealed(one)
            assert (shown.request, shown.features) == ({"value": 9.0, **who}, features)
        kept = world.project.fleet.uploads()[0].profile
        assert kept is not None
        assert set(kept["columns"]) == {"Basket.share", "probability"}


def test_bad_deliveries_are_refused(world: World) -> None:
    good = world.body([(1, world.record(1))])
    with pytest.raises(Denied, match="There is no device 'depot-2'"):
        world.send(good, "depot-2")
    with pytest.raises(Denied, match="not signed by the key of device 'depot-1'"):
        take_records(world.project, "depot-1", good, Ed25519PrivateKey.generate().sign(good).hex())
    for signature in ("", "zz", "00" * 64):
        with pytest.raises(Denied):
            take_records(world.project, "depot-1", good, signature)
    for body, why in (
        (world.body([], project="other"), "of project 'other'"),
        (world.body([], device="depot-9"), "of device 'depot-9'"),
        (world.body([(2, world.record(2)), (1, world.record(1))]), "numbers must grow"),
        (world.body([(1, world.record(1, id="../x"))]), "no id of 32"),
        (world.body([(1, {"kind": "other"})]), "cannot be read"),
        (b"[]", "cannot be read"),
    ):
        with pytest.raises(Invalid, match=why):
            world.send(body)
    world.send(world.body([(1, world.record(1, version=9))]))  # a version that was never published
    assert device(world.project, "depot-1").refused == 1
    assert world.logged() == {}


@contextmanager
def console(project: Project) -> Iterator[str]:
    """Serve the console of a project."""
    port, loop = free_port(), asyncio.new_event_loop()
    stop, started = asyncio.Event(), threading.Event()
    app = create_app(project)
    body = serve(app, Address("127.0.0.1", port), stop=stop, started=started.set)
    thread = threading.Thread(target=loop.run_until_complete, args=(body,), daemon=True)
    thread.start()
    assert started.wait(20)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()


def test_a_queue_that_waited_offline_is_uploaded_over_http(world: World) -> None:
    queue = Queue(world.folder / "queue.db")
    queue.add([world.record(number) for number in range(1, 1201)])
    clock: Mapping[str, Any] = {"boot": "b1", "mono_us": 2_000_000_000, "at": time.time_ns() // 1000}
    about = {"project": world.project.settings.project, "device": "depot-1"}
    away = Uploads(f"http://127.0.0.1:{free_port()}", about, world.key)
    with pytest.raises(Unreachable):
        away.send(queue, clock)
    assert queue.depth().rows == 1200
    with console(world.project) as url:
        uploads = Uploads(url, about, world.key)
        sent = []
        while count := uploads.send(queue, clock):
            sent.append(count)
        assert sum(sent) == 1200
        assert len(sent) == 3, "at most 500 at once"
        impostor = Uploads(url, about, Ed25519PrivateKey.generate())
        queue.add([world.record(1)])
        with pytest.raises(Refused, match="refuses this device"):
            impostor.send(queue, clock)
    queue.close()
    assert len(world.logged()) == 1200
    with pytest.raises(Refused, match="has to be https"):
        Uploads("http://example.org", about, world.key)
