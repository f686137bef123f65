from __future__ import annotations

import pytest

from kit.console.shop import BUYERS, KEYINGS, NOW, Orders, orders, rows, shop
from mainspring.core.errors import Corrupt, Unavailable
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import DAY, MINUTE
from mainspring.data.ingest import Ingestor
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.keys import encode_key
from mainspring.features.layout import slot
from mainspring.features.model import EntityState
from mainspring.operations.features.entity_values import entity_values


@pytest.fixture(scope="module")
def project():
    return shop()


def values(project, key: tuple[str, int], **more):
    named = dict(zip(("country", "number"), key, strict=True))
    return entity_values(Orders, named, project.online, project.lake.scan, **{"at": project.clock.now(), **more})


@pytest.mark.parametrize("key", BUYERS[:-1])
def test_what_is_materialised_is_equal(project, key) -> None:
    found = values(project, key, at=NOW - 10 * MINUTE)
    assert (found.differing, found.problem, found.pending) == (0, None, 0)
    assert [value.feature for value in found.values] == list(Orders.names)
    assert found.rows > 0
    assert {value.feature: value.status for value in found.values}["orders_24h"] in ("PRESENT", "NULL")
    assert isinstance(found.values[-2].online, int)  # an instant, as microseconds


def test_one_that_was_never_seen_is_missing_in_both(project) -> None:
    found = values(project, ("XX", 5))
    assert {value.status for value in found.values} == {"MISSING"}
    assert (found.differing, found.rows) == (0, 0)


def test_a_row_that_came_since_makes_a_difference_and_is_counted() -> None:
    project = shop()
    more = rows(1)[0] | {"country": "AT", "number": 1, "amount": 999.0, "paid": True}
    more |= {"ordered_at": "2024-03-20T10:20:00Z", "seen_at": "2024-03-20T10:21:00Z"}
    Ingestor(project.lake, MemoryLocks(), project.clock).ingest(orders, [more], keyings=KEYINGS)
    found = values(project, ("AT", 1))
    largest = next(value for value in found.values if value.feature == "largest_7d")
    assert largest.differs
    assert largest.offline == 999.0
    assert largest.online != 999.0
    assert found.pending >= 1


def test_a_view_that_was_never_materialised(project) -> None:
    found = values(project.having(online=MemoryOnlineStore()), ("AT", 1))
    assert found.mark is None
    assert found.differing > 0


def test_a_value_that_is_made_of_what_identifies_a_person_is_withheld(project) -> None:
    found = values(project, ("AT", 1), at=NOW - 10 * MINUTE)
    (email,) = (value for value in found.values if value.personal)
    assert (email.feature, email.withheld, email.online, email.offline, email.differs) == (
        "email", True, None, None, False
    )  # fmt: skip
    assert not any(value.withheld for value in found.values if value is not email)
    revealed = values(project, ("AT", 1), at=NOW - 10 * MINUTE, shown=["email"])
    (email,) = (value for value in revealed.values if value.personal)
    assert not email.withheld
    assert "@" in email.online == email.offline


def test_a_lake_that_cannot_be_read_leaves_the_online_values(project) -> None:
    def broken(table):
        raise Corrupt("The log of orders is damaged.")

    key = {"country": "AT", "number": 1}
    found = entity_values(Orders, key, project.online, broken, NOW - 10 * MINUTE)
    assert found.problem == "The log of orders is damaged."
    assert found.differing == 0
    assert any(value.online is not None for value in found.values)


def test_a_store_that_does_not_answer_is_told(project) -> None:
    class Silent(MemoryOnlineStore):
        def read(self, wanted):
            raise Unavailable("The online store did not answer.")

    with pytest.raises(Unavailable):
        values(project.having(online=Silent()), ("AT", 1))


def test_a_damaged_state_is_told(project) -> None:
    store = MemoryOnlineStore()
    store.write(slot(Orders), [(encode_key(("AT", 1)), EntityState(NOW, b"nonsense"))])
    with pytest.raises(Corrupt, match="materialize Orders --rebuild"):
        values(project.having(online=store), ("AT", 1))


def test_later_it_is_expired_in_both(project) -> None:
    found = values(project, ("AT", 1), at=NOW + 30 * DAY)
    status = next(value for value in found.values if value.feature == "status")
    assert (status.status, status.online, status.offline, status.differs) == ("EXPIRED", None, None, False)
