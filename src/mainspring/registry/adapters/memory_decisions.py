"""In-memory stores of approvals, deletions and trusted keys, for tests and experiments."""

from __future__ import annotations

import threading
from dataclasses import replace

from mainspring.registry.decision_errors import approved_already, marked_already, not_approved, trusted_already
from mainspring.registry.model import Approval, Deletion, TrustedKey, Withdrawal


class MemoryApprovals:
    """Thread-safe store of approvals in lists."""

    def __init__(self) -> None:
        self._approvals: list[Approval] = []
        self._withdrawn: list[Withdrawal] = []
        self._lock = threading.Lock()

    def add(self, approval: Approval) -> None:
        with self._lock:
            if any(each.approver == approval.approver for each in self.of(approval.model, approval.version)):
                raise approved_already(approval)
            self._approvals.append(approval)

    def of(self, model: str, version: str | None = None) -> list[Approval]:
        return [each for each in reversed(self._approvals) if each.model == model and version in (None, each.version)]

    def withdraw(self, model: str, version: str, approver: str, *, actor: str, reason: str, at: int) -> Withdrawal:
        with self._lock:
            found = next((each for each in self.of(model, version) if each.approver == approver), None)
            if found is None:
                raise not_approved(model, version, approver)
            self._approvals.remove(found)
            self._withdrawn.append(Withdrawal(found, actor, reason, at))
            return self._withdrawn[-1]

    def withdrawn(self, model: str, version: str | None = None) -> list[Withdrawal]:
        return [
            each
            for each in reversed(self._withdrawn)
            if each.approval.model == model and version in (None, each.approval.version)
        ]


class MemoryDeletions:
    """Thread-safe store of deletion marks in a dictionary."""

    def __init__(self) -> None:
        self._marks: dict[tuple[str, str], Deletion] = {}
        self._lock = threading.Lock()

    def mark(self, deletion: Deletion) -> None:
        with self._lock:
            if self._marks.setdefault((deletion.model, deletion.version), deletion) is not deletion:
                raise marked_already(deletion)

    def unmark(self, model: str, version: str) -> bool:
        with self._lock:
            mark = self._marks.get((model, version))
            if mark is None or mark.claimed:
                return False
            del self._marks[model, version]
            return True

    def claim(self, model: str, version: str) -> bool:
        with self._lock:
            if (model, version) not in self._marks:
                return False
            self._marks[model, version] = replace(self._marks[model, version], claimed=True)
            return True

    def settle(self, model: str, version: str, *, carried_out: bool) -> None:
        with self._lock:
            mark = self._marks.pop((model, version), None)
            if mark is not None and not carried_out:
                self._marks[model, version] = replace(mark, claimed=False)

    def all(self) -> list[Deletion]:
        with self._lock:
            return sorted(self._marks.values(), key=lambda each: (each.at, each.model, each.version))


class MemoryTrustedKeys:
    """Thread-safe store of trusted keys in a dictionary."""

    def __init__(self) -> None:
        self._keys: dict[str, TrustedKey] = {}
        self._lock = threading.Lock()

    def add(self, key: TrustedKey) -> None:
        with self._lock:
            if key.name in self._keys or any(each.public == key.public for each in self._keys.values()):
                raise trusted_already(key)
            self._keys[key.name] = key

    def remove(self, name: str) -> bool:
        with self._lock:
            return self._keys.pop(name, None) is not None

    def all(self) -> list[TrustedKey]:
        with self._lock:
            return [self._keys[name] for name in sorted(self._keys)]
