"""Conformance suite of locks."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mainspring.core.errors import Conflict, Invalid
from mainspring.core.locks import Locks


class LocksConformance:
    """The fixtures `locks` and `elsewhere` are the same locks, as two processes would open them."""

    def test_a_lock_has_one_holder(self, locks: Locks, elsewhere: Locks) -> None:
        for other in (locks, elsewhere):
            with locks.hold("ingest"):
                with pytest.raises(Conflict, match="ingest is in use by"), other.hold("ingest", wait_s=0.05):
                    pass
                with pytest.raises(Conflict, match="ingest is in use by"), other.hold("ingest", wait_s=0):
                    pass
                with other.hold("train", wait_s=0):
                    pass
            with other.hold("ingest", wait_s=0):
                pass

    def test_an_error_inside_goes_on_and_frees_the_lock(self, locks: Locks, elsewhere: Locks) -> None:
        with pytest.raises(ZeroDivisionError), locks.hold("ingest"):
            raise ZeroDivisionError
        with elsewhere.hold("ingest", wait_s=0):
            pass

    def test_who_waits_gets_it(self, locks: Locks, elsewhere: Locks) -> None:
        order: list[str] = []
        waiting = threading.Event()

        def second() -> None:
            waiting.set()
            with elsewhere.hold("ingest", wait_s=30):
                order.append("second")

        thread = threading.Thread(target=second)
        with locks.hold("ingest"):
            thread.start()
            waiting.wait()
            time.sleep(0.05)
            order.append("first")
        thread.join()
        assert order == ["first", "second"]

    def test_nobody_is_inside_with_another(self, locks: Locks, elsewhere: Locks) -> None:
        inside, most = [0], [0]

        def work(own: Locks) -> None:
            for _ in range(10):
                with own.hold("ingest", wait_s=60):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    time.sleep(0.001)
                    inside[0] -= 1

        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(work, own) for own in (locks, elsewhere) * 2]:
                done.result()
        assert most == [1]

    def test_many_are_held_at_once(self, locks: Locks, elsewhere: Locks) -> None:
        """A pool with a limited number of connections would deadlock here."""

        def nested(depth: int) -> None:
            with locks.hold(f"lock-{depth}", wait_s=0):
                if depth < 30:
                    nested(depth + 1)
                else:
                    with pytest.raises(Conflict), elsewhere.hold("lock-0", wait_s=0):
                        pass

        nested(0)
        with elsewhere.hold("lock-0", wait_s=0):
            pass

    def test_a_scope_has_names_of_its_own(self, locks: Locks, elsewhere: Locks) -> None:
        with (
            locks.hold("table", wait_s=0),
            locks.within("lake").hold("table", wait_s=0),
            elsewhere.within("other").hold("table", wait_s=0),
            pytest.raises(Conflict, match="table is in use"),
            elsewhere.within("lake").hold("table", wait_s=0),
        ):
            pass

    def test_a_lock_is_no_path(self, locks: Locks) -> None:
        with pytest.raises(Invalid, match="cannot name a scope of locks"):
            locks.within("..")
        with pytest.raises(Invalid, match="cannot name a lock"), locks.hold("../ingest"):
            pass
