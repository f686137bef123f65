"""A process is killed between an effect on the catalog and its event of the audit log, or before both are committed:
neither is there. Where it is killed after the commit, both are."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from kit.auditing import KEY
from kit.console.flights import Project, origin
from kit.servers import PostgresServer
from mainspring.console.access import keys as console_keys
from mainspring.core.locks import MemoryLocks
from mainspring.core.settings import Url
from mainspring.core.time import DAY, ManualClock
from mainspring.operations import access, keys, provisioning, sessions
from mainspring.operations.auditing import begun, unfinished
from mainspring.operations.doctor import examine
from mainspring.operations.edge import fleet
from mainspring.operations.encryption import renew
from mainspring.operations.models import transferring
from mainspring.operations.models.curating import garbage
from mainspring.operations.subjects.holding import hold, release
from mainspring.operations.subjects.naming import Subject
from mainspring.project.catalog import open_catalog
from mainspring.registry.adapters.memory import MemoryBlobs
from mainspring.security.adapters.audit import CatalogAuditLog
from mainspring.security.model import AuditEvent, DirectoryGroup, KeyScope, Kind, Principal, UserSession
from mainspring.security.verification import verify_log

_BY = Principal("k1", "ana's key", frozenset(KeyScope))
_JFK, _LGA = (Subject(origin, {"origin": name}) for name in ("JFK", "LGA"))
_MOMENTS = ("between", "before the commit", "after")


class Effects:
    """A project with something to change of each kind, and the changes."""

    def __init__(self, engine: sa.Engine) -> None:
        self.project = project = Project(engine=engine, signing_key=KEY)
        self.ana = access.add_account(project, Kind.USER, "Ana")
        self.grant = access.parse_grant(project, "viewer", f"user:{self.ana.id}")
        access.grant_role(project, self.grant)
        access.add_group(project, "risk")
        access.set_member(project, "risk", self.ana, member=True)
        self.key = keys.create_key(project, "nightly", [KeyScope.VIEW], DAY).split("_")[1]
        for number in ("s1", "s2"):
            project.user_sessions.add(UserSession(number, self.ana.id, 1, 2**60, 1, b""), 1)
        self.group = provisioning.create_group(project, DirectoryGroup("", "team", ""), "okta")
        transferring.trust(project, "other", "ab" * 32)
        fleet.register(project, "d1", "late", "cd" * 32)
        hold(project, [_JFK], "case 1")
        project.data_keys.renew("ledger")

    @property
    def all(self) -> dict[str, Callable[[], object]]:
        here, ana = self.project, self.ana
        role = access.parse_grant(here, "analyst", f"user:{ana.id}")
        person = provisioning.Person("ben", "", "Ben", "ben@example.org")
        return {
            "accounts.add": lambda: access.add_account(here, Kind.USER, "Ben"),
            "accounts.bind": lambda: access.bind_name(here, ana, "local:ana", by="x"),
            "accounts.disable": lambda: access.set_disabled(here, ana, True),
            "accounts.remove": lambda: access.remove_account(here, ana),
            "groups.add": lambda: access.add_group(here, "ops"),
            "groups.remove": lambda: access.remove_group(here, "risk"),
            "groups.remove-member": lambda: access.set_member(here, "risk", ana, member=False),
            "roles.grant": lambda: access.grant_role(here, role),
            "roles.revoke": lambda: access.revoke_role(here, self.grant),
            "keys.create": lambda: keys.create_key(here, "other", [KeyScope.VIEW], DAY),
            "keys.revoke": lambda: keys.revoke_key(here, self.key),
            "key.create": lambda: console_keys.create(here, console_keys.NewKey("x", [KeyScope.VIEW], "1d"), _BY),
            "key.revoke": lambda: console_keys.revoke(here, self.key, _BY),
            "sessions.end": lambda: sessions.end_sessions(here, ana, "left"),
            "directory users": lambda: provisioning.create_user(here, person, "okta"),
            "directory groups": lambda: provisioning.remove_group(here, self.group.id, "okta"),
            "trust": lambda: transferring.trust(here, "third", "12" * 32),
            "forget": lambda: transferring.forget(here, "other"),
            "edge.register": lambda: fleet.register(here, "d2", "late", "ef" * 32),
            "edge.remove": lambda: fleet.remove(here, "d1"),
            "subject.hold": lambda: hold(here, [_LGA], "case 2"),
            "subject.release": lambda: release(here, [_JFK]),
            "encryption.renew": lambda: renew(here),
        }

    def content(self) -> dict[str, list[Any]]:
        """Return the rows of all tables."""
        with self.project.engine.connect() as connection:
            names = sa.inspect(connection).get_table_names()
            return {
                name: sorted(map(repr, connection.execute(sa.text(f'SELECT * FROM "{name}"')).all())) for name in names
            }


def test_an_effect_that_was_cut_off_is_named_until_it_is_completed(tmp_path: Path) -> None:
    engine = open_catalog(Url(f"sqlite:///{tmp_path / 'catalog.db'}"), MemoryLocks())
    here = Project(engine=engine, signing_key=KEY)
    engine.dispose()
    for resource in ("source/a", "source/b"):
        child = os.fork()
        if not child:
            with begun(here, "ingest", resource):
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
    with pytest.raises(KeyError), begun(here, "train", "model/late"):
        raise KeyError("data")
    later = here.having(wall=ManualClock(here.wall.now() + 2 * DAY))
    with begun(later, "ingest", "source/b") as done:
        assert [each.resource for each in unfinished(here)] == ["source/a", "source/b", "source/b"]
        done("9 rows")
    [left] = unfinished(here)
    assert (left.number, left.action, left.resource) == (0, "ingest", "source/a")
    assert verify_log(here.audit, KEY.public).unfinished == (left,)
    [young] = [each for each in examine(here, "audit log") if "no completion" in each.detail]
    [old] = [each for each in examine(later, "audit log") if "no completion" in each.detail]
    assert (young.ok, old.ok) == (True, False)
    engine.dispose()


def test_another_process_of_the_same_actor_hides_none_that_was_killed(tmp_path: Path) -> None:
    engine = open_catalog(Url(f"sqlite:///{tmp_path / 'catalog.db'}"), MemoryLocks())
    here = Project(engine=engine, signing_key=KEY)
    engine.dispose()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        with begun(here, "ingest", "source/a"):
            os.write(write, b"begun")
            signal.pause()
    assert os.read(read, 5) == b"begun"
    with begun(here, "ingest", "source/a") as done:
        done("9 rows")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(read)
    os.close(write)
    assert [each.number for each in unfinished(here)] == [0]
    assert [each.number for each in verify_log(here.audit, KEY.public).unfinished] == [0]
    engine.dispose()


class Deadly(MemoryBlobs):
    """Kills the process that looks what there is."""

    def stored(self) -> dict[str, int]:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}


def test_a_collection_of_garbage_that_was_killed_is_named(tmp_path: Path) -> None:
    engine = open_catalog(Url(f"sqlite:///{tmp_path / 'catalog.db'}"), MemoryLocks())
    here = Project(engine=engine, signing_key=KEY, blobs=Deadly())
    engine.dispose()
    child = os.fork()
    if not child:
        garbage(here, grace_us=DAY)
    os.waitpid(child, 0)
    assert [(each.action, each.resource) for each in unfinished(here)] == [("collect-garbage", "bundles")]
    engine.dispose()


class Dying(CatalogAuditLog):
    """Kills its process at a moment of the first append."""

    def __init__(self, engine: sa.Engine, moment: str) -> None:
        super().__init__(engine, lambda: KEY)
        self._moment = moment

    @contextmanager
    def together(self) -> Iterator[None]:
        with super().together():
            yield
        os.kill(os.getpid(), signal.SIGKILL)

    def append(self, events: Sequence[AuditEvent], *, unless_among: int = 0) -> int | None:
        if self._moment == "between":
            os.kill(os.getpid(), signal.SIGKILL)
        number = super().append(events, unless_among=unless_among)
        if self._moment == "before the commit":
            os.kill(os.getpid(), signal.SIGKILL)
        return number


def killed(effects: Effects, name: str, moment: str) -> None:
    """Do an effect in a process of its own that is killed at a moment."""
    change = effects.all[name]
    effects.project.engine.dispose()
    child = os.fork()
    if not child:
        try:
            effects.project.__dict__["audit"] = Dying(effects.project.engine, moment)
            change()
        finally:
            os._exit(1)  # it was not killed
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), (name, moment, status)


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_an_effect_is_there_with_its_event_or_neither_is(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if database == "sqlite":
        url = Url(f"sqlite:///{tmp_path / 'catalog.db'}")
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url = server.fresh()
    engine = open_catalog(url, MemoryLocks(), "depot")
    request.addfinalizer(engine.dispose)
    effects = Effects(engine)
    for name in effects.all if database == "sqlite" else ("accounts.disable", "roles.grant"):
        before = effects.content()
        for moment in _MOMENTS[:2]:
            killed(effects, name, moment)
            assert effects.content() == before, (name, moment)
    log = effects.project.audit
    events = len(log.read(1_000))
    killed(effects, "accounts.disable", "after")
    account = effects.project.accounts.find(effects.ana.id)
    assert account is not None
    assert account.disabled_at is not None
    assert [each.action for each in log.read(1_000)][: -events or None] == ["accounts.disable"]
    assert verify_log(log, KEY.public).damage == ()
