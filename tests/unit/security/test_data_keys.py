"""Data keys over a catalog in memory and a key service that can be away."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from kit.waiting import wait_until
from mainspring.core.errors import Corrupt, Unavailable
from mainspring.core.time import SECOND, ManualClock
from mainspring.project.catalog import memory_catalog
from mainspring.security.adapters.data_keys import CatalogDataKeys, data_keys
from mainspring.security.adapters.key_file import FileKeys
from mainspring.security.data_keys import DataKeys, OneKey
from mainspring.security.envelopes import key_of, seal, unseal
from mainspring.security.model import Wrapped
from mainspring.security.ports import DataKeyStore

KEPT_S = 600.0


class Leaving(FileKeys):
    """Counts calls, and does not answer while it is `away`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.away, self.asked = False, 0

    def unwrap(self, wrapped: Sequence[Wrapped], contexts: Sequence[str]) -> list[bytes]:
        self.asked += 1
        if self.away:
            raise Unavailable("The key service is away.")
        return super().unwrap(wrapped, contexts)


class Installation:
    """One catalog and key service, and processes over them, on a clock of seconds that the test moves."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now = folder, 0.0
        self.engine = memory_catalog()
        self.service = Leaving(folder / "master")
        self.there = True

    def store(self) -> DataKeyStore:
        if not self.there:
            raise Unavailable("The catalog is away.")
        return CatalogDataKeys(self.engine)

    def process(self, project: str = "shop") -> DataKeys:
        return DataKeys(
            self.store, self.service, ManualClock(7), project=project, keep_us=int(KEPT_S * SECOND),
            copy=self.folder / "copy", monotonic=lambda: self.now,
        )  # fmt: skip


@pytest.fixture
def made(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def test_a_purpose_has_one_key_in_all_processes(made: Installation) -> None:
    first, second = made.process(), made.process()
    key = first.newest("predictions")
    assert second.newest("predictions") == key != first.newest("bundles")
    assert second.secrets([key.id] * 3) == [key.secret] * 3


def test_processes_that_need_the_first_key_at_once_agree(made: Installation) -> None:
    with ThreadPoolExecutor(8) as threads:
        keys = set(threads.map(lambda _: made.process().newest("predictions"), range(8)))
    assert len(keys) == 1


def test_the_catalog_has_nothing_of_a_key(made: Installation) -> None:
    key = made.process().newest("predictions")
    (stored,) = made.store().all()
    assert key.secret not in stored.wrapped.content
    assert key.secret not in (made.folder / "copy").read_bytes()
    assert (made.folder / "copy").stat().st_mode & 0o777 == 0o600


def test_a_row_under_another_purpose_or_project_does_not_open(made: Installation) -> None:
    key = made.process().newest("predictions")
    with pytest.raises(Corrupt):
        made.process("other").secrets([key.id])
    with made.engine.begin() as connection:
        connection.execute(sa.update(data_keys).values(purpose="bundles"))
    with pytest.raises(Corrupt):
        made.process().secrets([key.id])


def test_an_unknown_key_is_corrupt(made: Installation) -> None:
    for keys in (made.process(), OneKey()):
        with pytest.raises(Corrupt, match="unknown"):
            keys.secrets(["f" * 32])


def test_rotation_of_the_master_key_wraps_again_and_old_data_opens(made: Installation) -> None:
    running = made.process()
    envelope = seal(running.newest("predictions"), "store", "one", b"content")
    other = running.newest("bundles")
    made.service.rotate()
    assert [made.process().rewrap(), made.process().rewrap()] == [2, 0]
    assert {each.wrapped.version for each in made.store().all()} == {"2"}
    assert (running.newest("bundles"), made.process().newest("bundles")) == (other, other)
    (made.folder / "master" / "1").unlink()  # nothing needs it any more
    for keys in (running, made.process()):
        assert unseal(keys.secrets([key_of(envelope)])[0], "store", "one", envelope) == b"content"


def test_an_interrupted_rotation_is_finished(made: Installation) -> None:
    keys = made.process()
    keys.newest("a"), keys.newest("b")
    made.service.rotate()
    a, _ = made.store().all()
    made.store().rewrap([a], made.service.wrap(made.service.unwrap([a.wrapped], [f"mainspring/shop/a/{a.id}"]),
                                               [f"mainspring/shop/a/{a.id}"]))  # fmt: skip
    assert keys.rewrap() == 1
    assert made.process().check() == 2


def test_keys_move_to_another_service(made: Installation, tmp_path: Path) -> None:
    key = made.process().newest("a")
    former, made.service = made.service, Leaving(tmp_path / "other")
    with pytest.raises(Corrupt):
        made.process().check()
    assert made.process().rewrap(former) == 1
    assert made.process().newest("a") == key


def test_a_move_to_another_service_goes_on_with_the_keys_that_are_left(made: Installation, tmp_path: Path) -> None:
    old = made.process().newest("a"), made.process().newest("b")
    former, made.service = made.service, Leaving(tmp_path / "other")
    new = made.process().newest("c")  # under the new service before the others are
    assert [made.process().rewrap(former), made.process().rewrap(former)] == [2, 0]
    made.service.rotate()
    assert [made.process().rewrap(former), made.process().rewrap(former)] == [3, 0]
    assert made.process().secrets([each.id for each in (*old, new)]) == [each.secret for each in (*old, new)]


def test_no_key_is_taken_for_another_service_s_while_the_new_one_is_away(made: Installation, tmp_path: Path) -> None:
    made.process().newest("a")
    former, made.service = made.service, Leaving(tmp_path / "other")
    made.service.away = True
    with pytest.raises(Unavailable):
        made.process().rewrap(former)


def test_a_new_data_key_encrypts_and_the_old_one_decrypts(made: Installation) -> None:
    running, other = made.process(), made.process()
    old = running.newest("a")
    assert other.newest("a") == old
    running.renew("a")
    new = running.newest("a")
    assert new.id != old.id
    assert other.newest("a") == old  # until it looks again
    made.now += 61
    other.newest("a")
    wait_until(lambda: other.newest("a") == new, "the newer key")
    assert made.process().secrets([old.id, new.id]) == [old.secret, new.secret]


def test_a_service_that_is_away_for_less_than_the_kept_time_stops_nothing(made: Installation) -> None:
    keys = made.process()
    key = keys.newest("a")
    assert keys.secrets([key.id]) == [key.secret]
    made.service.away = True
    for _ in range(int(KEPT_S) // 50):
        made.now += 50
        assert keys.newest("a") == key
        assert keys.secrets([key.id]) == [key.secret]


def test_a_service_that_is_away_for_longer_is_an_error_until_it_is_back(made: Installation) -> None:
    keys = made.process()
    key = keys.newest("a")
    keys.secrets([key.id])
    made.service.away = True
    made.now += KEPT_S + 1
    for asked in (lambda: keys.newest("a"), lambda: keys.secrets([key.id]), lambda: made.process().newest("a")):
        with pytest.raises(Unavailable, match="The key service is away"):
            asked()
    made.service.away = False
    made.now += 2
    _answers(keys, key.id)
    assert keys.secrets([key.id]) == [key.secret]


def _answers(keys: DataKeys, key_id: str) -> None:
    def answered() -> bool:
        try:
            return keys.newest("a").id == key_id
        except Unavailable:
            return False

    wait_until(answered, "the key service's answer")


def test_a_key_that_was_not_used_for_long_is_asked_for_again(made: Installation) -> None:
    keys = made.process()
    key = keys.newest("a")
    made.now += 3 * KEPT_S
    assert keys.newest("a") == key


def test_while_it_is_away_no_call_waits_for_the_service(made: Installation) -> None:
    keys = made.process()
    keys.newest("a")
    made.service.away = True
    made.now += KEPT_S + 1
    with pytest.raises(Unavailable):
        keys.newest("a")
    asked = made.service.asked
    for _ in range(1000):
        with pytest.raises(Unavailable):
            keys.newest("a")
    assert made.service.asked - asked <= 1


def test_a_process_starts_while_the_catalog_is_away(made: Installation) -> None:
    key = made.process().newest("a")
    made.there = False
    keys = made.process()
    assert keys.newest("a") == key
    assert keys.secrets([key.id]) == [key.secret]
    with pytest.raises(Unavailable):
        keys.newest("b")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a": 1}'])
def test_a_damaged_copy_is_as_none(made: Installation, content: bytes) -> None:
    key = made.process().newest("a")
    (made.folder / "copy").write_bytes(content)
    assert made.process().newest("a") == key
    made.there = False
    assert made.process().newest("a") == key  # it was written again


def test_a_master_key_that_others_can_read_is_refused(made: Installation) -> None:
    key = made.process().newest("a")
    (made.folder / "master" / "1").chmod(0o640)
    with pytest.raises(Exception, match="chmod 600"):
        made.process().secrets([key.id])
