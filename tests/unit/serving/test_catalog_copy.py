"""The gateway's copy of the catalog, over stores in memory that can be taken away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kit.serving import NOW, PEPPER, route
from kit.waiting import wait_until
from mainspring.core.errors import Denied, Unavailable
from mainspring.core.time import DAY, HOUR, SECOND, ManualClock
from mainspring.project.catalog import memory_catalog
from mainspring.security.adapters.accounts import CatalogAccounts
from mainspring.security.adapters.catalog import CatalogKeyStore
from mainspring.security.keys import Authenticator, issue
from mainspring.security.model import Account, KeyScope, Kind
from mainspring.security.ports import Unchecked
from mainspring.serving.adapters.catalog import CatalogRoutes
from mainspring.serving.model import Arm
from mainspring.serving.plane.catalog_copy import CatalogCopy
from mainspring.serving.plane.copy_file import CopyFile


class Catalog:
    """Routes and keys that a test can take away; counts how often it was asked for keys."""

    def __init__(self) -> None:
        catalog, self.routes = memory_catalog(), CatalogRoutes(memory_catalog())
        self.keys, self.accounts = CatalogKeyStore(catalog), CatalogAccounts(catalog)
        self.routes.publish([route(Arm("1", "a" * 64))])
        self.away = False
        self.asked = 0
        self.further = "one"

    def connect(self) -> Any:
        if self.away:
            raise Unavailable("It is away.")
        self.asked += 1
        return self.routes, self.keys

    def key(self, owner: str = "") -> str:
        clock, scopes = ManualClock(NOW), [KeyScope.PREDICT]
        return issue(self.keys, name="ana", scopes=scopes, lifetime_us=DAY, clock=clock, pepper=PEPPER, owner=owner)


class Here:
    """A copy, its catalog, its file, and two times that a test sets."""

    def __init__(self, folder: Path) -> None:
        self.catalog, self.clock, self.seconds = Catalog(), ManualClock(NOW), 100.0
        self.file = CopyFile(folder / "copy", of="here", pepper=PEPPER)
        self.copies: list[CatalogCopy] = []
        self.copy = self.started()
        assert self.copy.revision() == 1  # and so it has looked once

    def started(self) -> CatalogCopy:
        copy = CatalogCopy(
            self.catalog.connect, self.clock, further=lambda: self.catalog.further, max_stale_us=HOUR, file=self.file,
            monotonic=lambda: self.seconds,
        )  # fmt: skip
        copy.start()
        self.copies.append(copy)
        return copy

    def passes(self, seconds: float) -> None:
        self.seconds += seconds
        self.clock.advance(int(seconds * SECOND))

    def call(self, token: str, copy: CatalogCopy | None = None) -> str:
        """Return whose key it is."""
        return asyncio.run(self.calling(token, copy))

    async def calling(self, token: str, copy: CatalogCopy | None = None) -> str:
        """Ask as a gateway asks."""
        authenticator = Authenticator(copy or self.copy, PEPPER, self.clock)
        try:
            return authenticator.authenticate(f"Bearer {token}").name
        except Unchecked as unchecked:
            await unchecked.wait(30)
            return authenticator.authenticate(f"Bearer {token}").name


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    made = Here(tmp_path)
    yield made
    for copy in made.copies:
        copy.stop()


def test_a_new_key_is_found_at_once_and_a_revoked_one_soon_refused(here: Here) -> None:
    token = here.catalog.key()
    assert here.call(token) == "ana"
    here.catalog.keys.revoke(token.split("_")[1], NOW)
    here.passes(1)

    def refused() -> bool:
        try:
            here.call(token)
        except Denied:
            return True
        return False

    wait_until(refused, "the revocation to count")


def test_keys_of_a_disabled_or_removed_owner_are_refused_also_after_a_start_without_the_catalog(here: Here) -> None:
    ana, ben = Account("ana", Kind.USER, "Ana"), Account("ben", Kind.USER, "Ben")
    tokens = []
    for person in (ana, ben):
        here.catalog.accounts.add(person)
        tokens.append(here.catalog.key(person.id))
        assert here.call(tokens[-1]) == "ana"
    here.catalog.accounts.set_disabled(ana.id, NOW)
    here.catalog.accounts.remove(ben.id)
    here.passes(1)

    def refused() -> bool:
        count = 0
        for token in tokens:
            with suppress(Denied):
                here.call(token)
                count += 1
        return count == 0

    def saved() -> bool:
        kept = here.file.load()
        return kept is not None and all(key.holder is None or key.holder.disabled_at for key in kept.keys.values())

    wait_until(refused, "the owners' end to count")
    wait_until(saved, "the copy to be saved")
    here.catalog.away = True
    again = here.started()
    for token in tokens:
        with pytest.raises(Denied, match="disabled or removed"):
            here.call(token, again)


def test_many_unknown_keys_are_looked_for_together(here: Here) -> None:
    other = Catalog()
    before = here.catalog.asked

    async def flood() -> list[Any]:
        return await asyncio.gather(*(here.calling(other.key()) for _ in range(1000)), return_exceptions=True)

    told = asyncio.run(flood())
    kinds = {type(each) for each in told}
    assert kinds <= {Denied, Unavailable}
    assert Denied in kinds
    assert here.catalog.asked - before < 100
    assert len(here.copy._unknown) <= 4096


def test_known_keys_count_for_the_stated_time_and_unknown_ones_may_come_back(here: Here) -> None:
    token, new = here.catalog.key(), Catalog().key()
    assert here.call(token) == "ana"
    here.catalog.away = True
    here.passes(3599)
    assert here.call(token) == "ana"
    assert here.copy.stale_since == NOW
    assert here.copy.trouble is None
    with pytest.raises(Unavailable):
        here.call(new)
    here.passes(2)
    with pytest.raises(Unavailable, match="more than 1h"):
        here.call(token)
    here.catalog.away = False
    wait_until(lambda: here.copy.trouble is None, "the copy to follow")
    assert here.call(token) == "ana"


def test_a_start_without_the_catalog_counts_from_the_last_confirmation(here: Here) -> None:
    token = here.catalog.key()
    assert here.call(token) == "ana"
    here.catalog.away = True
    here.copy.stop()
    here.passes(3000)
    copy = here.started()
    assert copy.revision() == 1
    assert here.call(token, copy) == "ana"
    here.passes(601)
    assert copy.trouble is not None
    other = CopyFile(here.file.path, of="elsewhere", pepper=PEPPER)
    assert other.load() is None
    assert CopyFile(here.file.path, of="here", pepper=b"another" * 5).load() is None


def test_a_catalog_from_a_backup_is_followed_aloud_and_takes_no_revocation_back(here: Here) -> None:
    token = here.catalog.key()
    [key] = here.catalog.keys.all()
    for version in ("2", "3"):
        here.catalog.routes.publish([route(Arm(version, "b" * 64))])
    here.catalog.keys.revoke(key.id, NOW)
    wait_until(lambda: here.copy.revision() == 3, "the copy to follow")
    with pytest.raises(Denied, match="revoked"):
        here.call(token)
    backup = Catalog()
    backup.keys.add(key)
    here.catalog.routes, here.catalog.keys = backup.routes, backup.keys
    wait_until(lambda: here.copy.revision() == 1, "the copy to follow")
    assert here.copy.went_back
    here.passes(120)
    copy = here.started()
    wait_until(lambda: copy.went_back, "a start that does not forget it")
    with pytest.raises(Denied, match="revoked"):
        here.call(token)
    for version in ("4", "5", "6"):
        backup.routes.publish([route(Arm(version, "c" * 64))])
    wait_until(lambda: here.copy.revision() == 4, "the copy to follow")
    assert not here.copy.went_back


def test_a_catalog_that_lost_its_routing_table_counts_as_away(here: Here) -> None:
    here.catalog.routes = CatalogRoutes(memory_catalog())
    here.passes(10)
    assert here.copy.stale_since is not None
    assert set(here.copy.current()) == {"late-arrival"}


def test_a_start_reads_the_table_also_where_its_revision_is_that_of_the_saved_copy(here: Here) -> None:
    here.copy.stop()
    here.catalog.routes = CatalogRoutes(memory_catalog())
    here.catalog.routes.publish([route(Arm("2", "b" * 64))])
    copy = here.started()
    assert copy.revision() == 1
    assert [arm.version for arm in copy.current()["late-arrival"].arms] == ["2"]


def test_a_copy_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    assert CopyFile(tmp_path / "copy", of="here", pepper=PEPPER).load() is None


def test_further_content_is_followed_read_at_once_where_asked_and_there_without_the_catalog(here: Here) -> None:
    first = here.copy.further()
    assert first == "one"
    here.catalog.further = "two"
    assert here.copy.look(30)
    assert here.copy.further() == "two"
    here.catalog.further = "three"
    here.passes(2)
    wait_until(lambda: here.copy.further() == "three", "the copy to follow")
    same = here.copy.further()
    here.catalog.further = "thr" + "ee"
    assert here.copy.look(30)
    assert here.copy.further() is same, "an equal text is the same object"
    here.copy.stop()
    here.catalog.away = True
    later = here.started()
    assert not later.look(30)
    assert later.further() == "three"
