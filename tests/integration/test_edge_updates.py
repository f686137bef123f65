"""Devices update from a real repository over HTTPS; what an attacker who controls the server can do is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.edge_packages import KEY, NAME, Site, contents, install, package, site, slots
from mainspring.core.errors import Conflict, NotFound
from mainspring.core.locks import MemoryLocks
from mainspring.deploy.edge.repository import Repository
from mainspring.security.signing import SigningKey
from mainspring_edge.errors import Refused
from mainspring_edge.memory import Memory
from mainspring_edge.package import SIGNATURE
from mainspring_edge.slots import STARTS, NoPackage
from mainspring_edge.updates import Unreachable, Updates

DAY_US = 86_400_000_000


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path / "site") as found:
        found.publish(1)
        yield found


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path / "device")


def running(memory: Memory) -> int:
    """Return the version that a device runs after its next start."""
    return slots(Memory(memory.folder)).start().device.version


def test_a_device_installs_what_is_published_and_fetches_only_what_changed(made: Site, memory: Memory) -> None:
    install(memory, made, 1)
    assert running(memory) == 1
    made.repository.publish(_like_first(made))
    made.asked.clear()
    install(memory, made, 2)
    assert running(memory) == 2
    assert sorted(each.rpartition(".")[0].rpartition(".")[2] for each in made.asked if "targets/" in each) == [
        "edge", "edge", "golden"
    ]  # fmt: skip


def _like_first(made: Site) -> Path:
    """Return a package of version 2 with the model of version 1."""
    from mainspring.deploy.edge.package import write_package

    first = contents(made.folder / "packages" / "0" / f"{NAME}-1")
    files = {name: first[name] for name in ("model.onnx", "features.json")} | {"golden.json": b'{"new": 1}'}
    folder = made.folder / "packages" / "second"
    write_package(folder, {"name": NAME, "version": 2, "bundle": "2", "tolerance": 1e-6}, files, KEY)
    return folder


def test_an_older_state_of_the_repository_is_refused(made: Site, memory: Memory, tmp_path: Path) -> None:
    shutil.copytree(made.repository.folder, tmp_path / "old")
    made.publish(2)
    install(memory, made, 2)
    made.served = tmp_path / "old"
    with pytest.raises(Refused) as refused:
        install(memory, made, 1)
    assert refused.value.reason == "rollback"
    # The client's own files are lost too: the device's state still knows.
    shutil.rmtree(memory.folder / "tuf")
    with pytest.raises(Refused, match="this device has seen") as refused:
        install(Memory(memory.folder), made, 1)
    assert refused.value.reason == "rollback"
    assert running(memory) == 2


def test_a_repository_that_shows_an_old_state_for_too_long_is_refused(made: Site, memory: Memory) -> None:
    install(memory, made, 1)
    made.offset_us = 3 * DAY_US  # it was not signed again
    with pytest.raises(Refused, match="an old copy is being served, or the clock of this device is ahead") as refused:
        install(memory, made, 1)
    assert refused.value.reason == "expired"
    assert made.repository.refresh()
    install(memory, made, 1)


def test_a_clock_that_is_behind_does_not_make_expired_metadata_valid(made: Site, memory: Memory) -> None:
    day = made.now()
    made.offset_us = 3 * DAY_US
    memory.keep(time_us=made.now())  # from a desired state that the project signed
    with pytest.raises(Refused, match="has expired"):
        install(memory, made, 1, now=lambda: day - 365 * DAY_US)
    made.repository.refresh()
    install(memory, made, 1, now=lambda: day - 365 * DAY_US)
    assert running(memory) == 1


def test_a_package_of_another_project_is_refused(made: Site, memory: Memory, tmp_path: Path) -> None:
    install(memory, made, 1)
    other = SigningKey(b"o" * 32)
    made.publish(2, key=other)  # in our repository, signed by another project's key
    with pytest.raises(Refused) as refused:
        install(memory, made, 2)
    assert refused.value.reason == "signature"
    made.publish(3, name="other-model")
    with pytest.raises(Refused, match="has no late-arrival/3/edge"):
        install(memory, made, 3)
    with site(tmp_path / "another") as another:
        another.publish(9)
        with pytest.raises(Refused) as refused:  # another project's whole repository
            install(memory, another, 9, root=made.repository.first_root())
        assert refused.value.reason in ("signature", "metadata")
    assert running(memory) == 1


def test_what_is_changed_on_the_server_is_refused(made: Site, memory: Memory) -> None:
    install(memory, made, 1)
    made.publish(2)
    model = next(made.repository.folder.glob("targets/*/2/*.model.onnx"))
    good = model.read_bytes()
    for bad in (good[:-1], good + b"x", b"x" + good[1:]):
        model.write_bytes(bad)
        with pytest.raises((Refused, Unreachable)):
            install(memory, made, 2)
        assert running(memory) == 1
    model.write_bytes(good)
    install(memory, made, 2)
    metadata = made.repository.folder / "metadata" / "timestamp.json"
    changed = json.loads(metadata.read_bytes())
    changed["signed"]["version"] += 1
    metadata.write_text(json.dumps(changed))
    with pytest.raises(Refused) as refused:
        install(memory, made, 2)
    assert refused.value.reason == "signature"


def test_a_server_that_is_away_or_slow_is_tried_again_later(made: Site, memory: Memory) -> None:
    install(memory, made, 1)
    away = Updates(memory, "https://127.0.0.1:1", made.repository.first_root(), ca=made.ca)
    with pytest.raises(Unreachable, match="cannot be read"):
        away.fetch(NAME, 1, memory.folder / "b")
    made.delay_s = 0.3
    with pytest.raises(Unreachable):
        install(memory, made, 1, patience_s=0.1)
    stranger = Updates(memory, made.url, made.repository.first_root())  # whose authority is not known
    with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
        stranger.fetch(NAME, 1, memory.folder / "b")
    with pytest.raises(Refused, match="has to be https"):
        Updates(memory, "http://example.org", b"")


def test_keys_are_rotated_without_touching_devices(made: Site, memory: Memory) -> None:
    install(memory, made, 1)
    root = made.repository.first_root()
    for role in ("timestamp", "targets", "root", "snapshot"):
        made.repository.rotate(role)
    made.publish(2)
    install(memory, made, 2, root=root)
    install(Memory(memory.folder.with_name("new")), made, 2, root=root)
    assert running(memory) == 2


def test_devices_that_slept_through_two_rotations_of_every_key_update(made: Site, memory: Memory) -> None:
    install(memory, made, 1)
    first, root = Memory(memory.folder.with_name("asleep")), made.repository.first_root()
    install(first, made, 1)
    before = made.folder / "before"
    shutil.copytree(made.repository.folder, before)
    for version in (2, 3):
        for role in ("root", "targets", "snapshot", "timestamp", "root"):
            made.repository.rotate(role)
        made.publish(version)
        install(memory, made, version)
    install(first, made, 3, root=root)
    assert (running(memory), running(first)) == (3, 3)
    made.served = before  # an old state, signed by keys that were replaced since
    with pytest.raises(Refused) as refused:
        install(memory, made, 1)
    assert refused.value.reason in ("rollback", "signature")
    made.served = made.repository.folder
    made.offset_us = 3 * DAY_US  # frozen: not signed again
    with pytest.raises(Refused, match="an old copy is being served"):
        install(memory, made, 3)
    made.repository.refresh()
    install(memory, made, 3)


def test_a_replaced_key_signs_nothing_that_devices_believe(made: Site, memory: Memory) -> None:
    install(memory, made, 1)
    thief = Repository(made.folder / "stolen", made.folder / "stolen-keys", MemoryLocks(), made.now)
    shutil.copytree(made.repository.folder, thief.folder)
    shutil.copytree(made.folder / "keys", made.folder / "stolen-keys")
    for role in ("timestamp", "root"):
        made.repository.rotate(role)
    install(memory, made, 1)
    thief.publish(package(made.folder / "evil", 9))
    made.served = thief.folder
    with pytest.raises(Refused) as refused:
        install(memory, made, 9)
    assert refused.value.reason in ("rollback", "signature")
    # The new root without the old root's signature.
    made.served = made.repository.folder
    made.repository.rotate("root")
    newest = max(made.repository.folder.glob("metadata/*.root.json"), key=lambda each: int(each.name.split(".")[0]))
    document = json.loads(newest.read_bytes())
    new = document["signed"]["roles"]["root"]["keyids"]
    document["signatures"] = [each for each in document["signatures"] if each["keyid"] in new]
    newest.write_text(json.dumps(document))
    with pytest.raises(Refused) as refused:
        install(memory, made, 1)
    assert refused.value.reason == "signature"


def test_the_key_of_the_root_may_be_elsewhere(made: Site, memory: Memory) -> None:
    away = made.folder / "drive"
    away.mkdir()
    here = made.folder / "keys" / "edge-root"
    here.rename(away / "edge-root")
    made.publish(2)
    made.offset_us = 200 * DAY_US  # the root is more than half through
    assert made.repository.refresh()
    install(memory, made, 2)
    assert made.repository.expires()["root"] < made.now() + 170 * DAY_US
    with pytest.raises(NotFound, match="is not the key of the role 'root'"):
        made.repository.rotate("targets")
    assert not here.exists(), "another key would be trusted by nobody"
    keys, root_key = made.folder / "keys", away / "edge-root"
    drive = Repository(made.repository.folder, keys, MemoryLocks(), made.now, root_key=root_key)
    for role in ("root", "targets"):
        drive.rotate(role)
    assert [(each.role, each.present) for each in drive.role_keys()] == [
        (role, True) for role in ("root", "targets", "snapshot", "timestamp")
    ]
    assert {each.name for each in away.iterdir()} == {"edge-root", "edge-root.before-2"}
    made.publish(3)
    install(memory, made, 3)


@pytest.mark.parametrize("role", ["root", "timestamp"])
@pytest.mark.parametrize("at", ["_write", "_sign_all"])
def test_a_rotation_that_is_killed_leaves_a_repository_that_signs(
    made: Site, memory: Memory, role: str, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:  # before the root that names the new key, and right after it
        dying.setattr(Repository, at, killed)
        with pytest.raises(KeyboardInterrupt):
            made.repository.rotate(role)
    made.publish(2)
    install(memory, made, 2)
    made.repository.rotate(role)
    made.publish(3)
    install(memory, made, 3)
    assert running(memory) == 3


def test_a_version_never_changes_and_may_be_withdrawn(made: Site, memory: Memory, tmp_path: Path) -> None:
    made.publish(1)  # the same content again
    with pytest.raises(Conflict, match="Version 1 of 'late-arrival' is published with another"):
        made.publish(1, size=3)
    made.publish(2)
    made.repository.withdraw(NAME, 2)
    with pytest.raises(Refused, match="has no late-arrival/2"):
        install(memory, made, 2)
    with pytest.raises(NotFound, match="Version 2 of 'late-arrival' is not published; there is late-arrival 1"):
        made.repository.release(NAME, 2)


def test_an_interrupted_publication_is_completed(made: Site, memory: Memory) -> None:
    stamp = made.repository.folder / "metadata" / "timestamp.json"
    before = stamp.read_bytes()
    made.publish(2)
    stamp.write_bytes(before)  # it died before its last write
    with pytest.raises(Refused):
        install(memory, made, 2)
    assert made.repository.refresh()
    install(memory, made, 2)


def test_a_package_that_fails_its_self_test_is_not_activated(made: Site, memory: Memory) -> None:
    install(memory, made, 1)
    made.publish(2, broken=True)
    with pytest.raises(Exception, match="Row 0 of the golden rows"):
        install(memory, made, 2)
    assert running(memory) == 1
    assert list(Memory(memory.folder).state.failed) == ["2"]


def test_a_package_that_never_becomes_healthy_is_left_after_some_starts(made: Site, memory: Memory) -> None:
    install(memory, made, 1)
    made.publish(2)
    install(memory, made, 2)
    started = [running(memory) for _ in range(STARTS + 1)]
    assert started == [2] * (STARTS - 1) + [1, 1]  # the installation was its first start
    assert "without becoming healthy" in Memory(memory.folder).state.failed["2"]


def test_a_confirmed_package_stays(made: Site, memory: Memory) -> None:
    install(memory, made, 1)
    made.publish(2)
    install(memory, made, 2)
    slots(memory).confirm()
    assert [running(memory) for _ in range(STARTS + 3)] == [2] * (STARTS + 3)


def test_a_damaged_slot_is_left_for_the_whole_one(made: Site, memory: Memory) -> None:
    install(memory, made, 1)
    made.publish(2)
    install(memory, made, 2)
    slots(memory).confirm()
    (memory.folder / "b" / "model.onnx").write_bytes(b"worn out")
    assert running(memory) == 1
    assert Memory(memory.folder).state.failed == {}  # not the version's fault
    (memory.folder / "a" / SIGNATURE).unlink()
    with pytest.raises(NoPackage, match="no package that it may run"):
        running(memory)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"active": "c"}'])
def test_a_lost_state_file_costs_no_package(made: Site, memory: Memory, content: bytes) -> None:
    install(memory, made, 1)
    (memory.folder / "state.json").write_bytes(content)
    assert running(memory) == 1


def test_a_package_folder_that_is_none_is_refused(made: Site, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="is no package: it has no edge"):
        made.repository.publish(tmp_path)
    folder = package(tmp_path, 5)
    made.repository.publish(folder)
    assert [each.version for each in made.repository.releases(NAME)] == [1, 5]
