"""Conformance suites of the stores of approvals, deletions and trusted keys."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from mainspring.core.errors import Conflict, NotFound
from mainspring.core.time import SECOND
from mainspring.registry.model import Approval, Deletion, TrustedKey, Waiver, Withdrawal
from mainspring.registry.ports import Approvals, Deletions, TrustedKeys, Waivers

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
        with pytest.raises(Conflict, match="ana has already approved late:1"):
            approvals.add(Approval("late", "1", A, "ana", "again", 2 * SECOND))
        assert len(approvals.of("late")) == 1

    def test_an_approval_that_is_withdrawn_counts_no_more_and_is_not_forgotten(self, approvals: Approvals) -> None:
        ana, ben = (Approval("late", "1", A, who, f"{who} looked", SECOND) for who in ("ana", "ben"))
        other = Approval("late", "2", B, "ana", "", SECOND)
        for approval in (ana, ben, other):
            approvals.add(approval)
        done = approvals.withdraw("late", "1", "ana", actor="carl", reason="wrong data", at=3 * SECOND)
        assert done == Withdrawal(ana, "carl", "wrong data", 3 * SECOND)
        assert approvals.of("late") == [other, ben]
        assert approvals.withdrawn("late") == approvals.withdrawn("late", "1") == [done]
        assert approvals.withdrawn("late", "2") == approvals.withdrawn("fraud") == []

    def test_only_what_stands_is_withdrawn(self, approvals: Approvals) -> None:
        approvals.add(Approval("late", "1", A, "ana", "", SECOND))
        for model, version, approver in (("late", "2", "ana"), ("fraud", "1", "ana"), ("late", "1", "ben")):
            with pytest.raises(NotFound, match=f"no approval of {model}:{version} by {approver}"):
                approvals.withdraw(model, version, approver, actor="ana", reason="", at=2 * SECOND)
        approvals.withdraw("late", "1", "ana", actor="ana", reason="", at=2 * SECOND)
        with pytest.raises(NotFound):
            approvals.withdraw("late", "1", "ana", actor="ana", reason="", at=3 * SECOND)
        assert len(approvals.withdrawn("late")) == 1

    def test_who_withdrew_may_approve_again(self, approvals: Approvals) -> None:
        for turn in range(2):
            approvals.add(Approval("late", "1", A, "ana", f"look {turn}", turn))
            with pytest.raises(Conflict):
                approvals.add(Approval("late", "1", A, "ana", "", turn))
            approvals.withdraw("late", "1", "ana", actor="ana", reason=f"doubt {turn}", at=10 + turn)
        last = Approval("late", "1", A, "ana", "look 2", 20)
        approvals.add(last)
        assert approvals.of("late", "1") == [last]
        assert [each.reason for each in approvals.withdrawn("late", "1")] == ["doubt 1", "doubt 0"]
        assert [each.approval.reason for each in approvals.withdrawn("late", "1")] == ["look 1", "look 0"]

    def test_of_two_that_withdraw_at_once_one_does(self, approvals: Approvals) -> None:
        def withdraw(actor: str) -> bool:
            try:
                approvals.withdraw("late", "1", "ana", actor=actor, reason="", at=SECOND)
            except NotFound:
                return False
            return True

        for turn in range(5):
            approvals.add(Approval("late", "1", A, "ana", "", SECOND))
            with ThreadPoolExecutor(2) as pool:
                assert sorted(pool.map(withdraw, ("ben", "carl"))) == [False, True]
            assert len(approvals.withdrawn("late")) == turn + 1


class WaiversConformance:
    """The fixture `waivers` is an empty store."""

    def test_what_is_added_is_there_newest_first_and_stays(self, waivers: Waivers) -> None:
        made = [
            Waiver("late", "1", A, "auc at least 0.9", "ana", "a hot fix", SECOND, 10 * SECOND, b"s" * 64),
            Waiver("late", "1", A, "auc at least 0.9", "ana", "once more", 2 * SECOND, 20 * SECOND, b"t" * 64),
            Waiver("late", "2", B, "brier at most 0.1", "ben", "known", 3 * SECOND, 30 * SECOND, b"u" * 64),
            Waiver("fraud", "1", B, "auc at least 0.9", "ana", "known", 4 * SECOND, 40 * SECOND, b"v" * 64),
        ]
        for waiver in made:
            waivers.add(waiver)
        assert waivers.of("late", "1") == [made[1], made[0]]
        assert waivers.of("late") == [made[2], made[1], made[0]]
        assert waivers.of("nobody") == []

    def test_an_end_is_recorded_once_and_for_that_gate_alone(self, waivers: Waivers) -> None:
        first = Waiver("late", "1", A, "auc at least 0.9", "ana", "why", SECOND, 10 * SECOND, b"s" * 64)
        other = Waiver("late", "1", A, "brier at most 0.1", "ana", "why", SECOND, 10 * SECOND, b"s" * 64)
        for waiver in (first, other):
            waivers.add(waiver)
        done = waivers.end("late", "1", "auc at least 0.9", actor="carl", at=3 * SECOND)
        assert done == replace(first, ended_at=3 * SECOND, ended_by="carl")
        assert waivers.of("late") == [other, done]
        for gate, version in (("auc at least 0.9", "1"), ("auc", "1"), ("brier at most 0.1", "2")):
            with pytest.raises(NotFound, match="no waiver of"):
                waivers.end("late", version, gate, actor="carl", at=4 * SECOND)

    def test_of_two_that_end_a_waiver_at_once_one_does(self, waivers: Waivers) -> None:
        def end(actor: str) -> bool:
            try:
                waivers.end("late", "1", "auc at least 0.9", actor=actor, at=SECOND)
            except NotFound:
                return False
            return True

        for _ in range(5):
            waivers.add(Waiver("late", "1", A, "auc at least 0.9", "ana", "why", SECOND, 10 * SECOND, b"s" * 64))
            with ThreadPoolExecutor(2) as pool:
                assert sorted(pool.map(end, ("ben", "carl"))) == [False, True]


class DeletionsConformance:
    """The fixture `deletions` is an empty store."""

    def test_a_mark_is_there_until_it_is_taken_back(self, deletions: Deletions) -> None:
        first = Deletion("late", "1", A, "ana", "old", SECOND)
        second = Deletion("late", "2", B, "ben", "", 2 * SECOND)
        deletions.mark(first)
        deletions.mark(second)
        assert deletions.all() == [first, second]
        with pytest.raises(Conflict, match="late:1 is already marked"):
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
        with pytest.raises(Conflict, match="late:1 is already marked"):
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
