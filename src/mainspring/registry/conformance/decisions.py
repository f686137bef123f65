"""What every store of approvals, deletions and trusted keys has to do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from mainspring.core.errors import Conflict
from mainspring.core.time import SECOND
from mainspring.registry.model import Approval, Deletion, TrustedKey
from mainspring.registry.ports import Approvals, Deletions, TrustedKeys

A, B = "a" * 64, "b" * 64


class ApprovalsConformance:
    """The fixture `approvals` is an empty store."""

    def test_what_is_added_is_there_newest_first(self, approvals: Approvals) -> None:
        made = [
            Approval("late", "1", A, "ana", "looks good", SECOND),
            Approval("late", "1", A, "ben", "", 2 * SECOND),
            Approval("late", "2", B, "ana", "", 3 * SECOND),
            Approval("fraud", "1", B, "ana", "", 4 * SECOND),
        ]
        for approval in made:
            approvals.add(approval)
        assert approvals.of("late", "1") == [made[1], made[0]]
        assert approvals.of("late") == [made[2], made[1], made[0]]
        assert approvals.of("nobody") == []

    def test_nobody_approves_twice(self, approvals: Approvals) -> None:
        approvals.add(Approval("late", "1", A, "ana", "", SECOND))
        with pytest.raises(Conflict, match="ana has approved late:1"):
            approvals.add(Approval("late", "1", A, "ana", "again", 2 * SECOND))
        assert len(approvals.of("late")) == 1


class DeletionsConformance:
    """The fixture `deletions` is an empty store."""

    def test_a_mark_is_there_until_it_is_taken_back(self, deletions: Deletions) -> None:
        first = Deletion("late", "1", A, "ana", "old", SECOND)
        second = Deletion("late", "2", B, "ben", "", 2 * SECOND)
        deletions.mark(first)
        deletions.mark(second)
        assert deletions.all() == [first, second]
        with pytest.raises(Conflict, match="late:1 is marked"):
            deletions.mark(Deletion("late", "1", A, "ben", "", 3 * SECOND))
        assert deletions.unmark("late", "1")
        assert not deletions.unmark("late", "1")
        assert deletions.all() == [second]
        deletions.mark(first)
        assert deletions.all() == [first, second]

    def test_a_claimed_mark_is_not_taken_back(self, deletions: Deletions) -> None:
        mark = Deletion("late", "1", A, "ana", "old", SECOND)
        assert not deletions.claim("late", "1")
        deletions.mark(mark)
        assert deletions.claim("late", "1")
        assert deletions.claim("late", "1")
        assert not deletions.unmark("late", "1")
        assert [each.claimed for each in deletions.all()] == [True]
        with pytest.raises(Conflict, match="late:1 is marked"):
            deletions.mark(mark)
        deletions.settle("late", "1", carried_out=False)
        assert deletions.all() == [mark]
        deletions.claim("late", "1")
        deletions.settle("late", "1", carried_out=True)
        assert deletions.all() == []

    def test_either_it_is_claimed_or_it_is_taken_back(self, deletions: Deletions) -> None:
        for number in range(10):
            deletions.mark(Deletion("late", str(number), A, "ana", "", SECOND))
            with ThreadPoolExecutor(2) as pool:
                claimed = pool.submit(deletions.claim, "late", str(number))
                back = pool.submit(deletions.unmark, "late", str(number))
                assert claimed.result() != back.result()


class TrustedKeysConformance:
    """The fixture `trusted` is an empty store."""

    def test_a_key_is_trusted_until_it_is_not(self, trusted: TrustedKeys) -> None:
        staging = TrustedKey(b"s" * 32, "staging", "ana", SECOND)
        other = TrustedKey(b"o" * 32, "other", "ana", 2 * SECOND)
        trusted.add(staging)
        trusted.add(other)
        assert trusted.all() == [other, staging]
        for taken in (TrustedKey(b"n" * 32, "staging", "ben", SECOND), TrustedKey(b"s" * 32, "new", "ben", SECOND)):
            with pytest.raises(Conflict):
                trusted.add(taken)
        assert trusted.remove("staging")
        assert not trusted.remove("staging")
        assert trusted.all() == [other]
