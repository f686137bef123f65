"""Ports of the registry: runs, versions with aliases, decisions, and blobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from mainspring.registry.model import (
    AliasMove,
    Approval,
    Deletion,
    ModelVersion,
    RunRecord,
    TrustedKey,
    Waiver,
    Withdrawal,
)


class Tracking(Protocol):
    """Runs: parameters, metrics, tags, artefacts. Times are kept to the millisecond or better.

    The tags `registry.runs.PARENT`, `NAME` and `NOTE` hold a run's parent, its name and a person's note; an adapter
    also writes them in the form that its own tools read.
    """

    def start(self, model: str, tags: Mapping[str, str], at: int) -> str:
        """Open a run and return its id."""
        ...

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        metrics: Sequence[tuple[str, float, int, int]] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log to a run. A metric is (name, value, step, time in µs); all metrics of a call are kept, or none.

        An existing tag is replaced; an existing parameter cannot change. The whole history of a metric is kept, without
        duplicates of (value, step, time); its newest value (`RunRecord.metrics`) is the largest by step, time, value.

        Raises:
            Conflict: A parameter has another value already.
            Invalid: `registry.naming` does not allow a name. Nothing was kept.
            NotFound: The run does not exist.
            StorageFull: No space.
            Unavailable: The store is locked, or does not answer.
        """
        ...

    def history(self, run_id: str, metric: str) -> list[tuple[float, int, int]]:
        """Return every logged value of a metric as (value, step, time in µs), by step, then time.

        Raises:
            NotFound: The run does not exist. An unknown metric has an empty history.
        """
        ...

    def log_artefact(self, run_id: str, name: str, content: bytes | Path) -> None:
        """Store a file with the run, replacing one of the same name. `name` may have folders, as in `plots/roc.png`.

        Raises:
            Invalid: `name` is not a valid file name.
            NotFound: The run, or the file `content`, does not exist.
            StorageFull: No space.
        """
        ...

    def artefact(self, run_id: str, name: str) -> bytes:
        """Return the content of an artefact.

        Raises:
            NotFound: The run or the file is unknown.
        """
        ...

    def artefact_file(self, run_id: str, name: str) -> AbstractContextManager[Path]:
        """Return an artefact as a file that is there inside the block, to be read.

        Raises:
            Invalid: `name` is not a valid file name.
            NotFound: The run or the file is unknown.
        """
        ...

    def delete_artefact(self, run_id: str, name: str) -> None:
        """Delete an artefact. Raises as `artefact_file` does."""
        ...

    def artefacts(self, run_id: str) -> dict[str, int]:
        """Return name -> size in bytes of the artefacts, sorted by name.

        Raises:
            NotFound: The run does not exist.
        """
        ...

    def active(self, run_id: str) -> AbstractContextManager[None]:
        """Direct this thread's logging through the store's own client into the run, inside the block."""
        ...

    def aside(self, run_id: str, name: str) -> AbstractContextManager[None]:
        """Keep logging through the store's own client out of the run, inside the block; turn its autologging off.

        What this thread logs explicitly becomes a run of its own, called `name`, a child of this one.
        """
        ...

    def finish(self, run_id: str, status: str, at: int) -> None:
        """Close a run with the status FINISHED, FAILED or KILLED."""
        ...

    def get(self, run_id: str) -> RunRecord:
        """Return a run.

        Raises:
            NotFound: No run has this id.
        """
        ...

    def search(self, model: str | None = None, *, status: str | None = None, limit: int = 50) -> list[RunRecord]:
        """Return the runs of a model, or of all, newest first."""
        ...

    def deleted(self) -> list[RunRecord]:
        """Return the runs that a client has marked as deleted, newest first: what they logged is still there."""
        ...


Check = Callable[[object], None]


class ModelVersions(Protocol):
    """Names for bundles: numbered versions of a model, and movable aliases."""

    def register(self, model: str, digest: str, run_id: str, tags: Mapping[str, str], at: int) -> ModelVersion:
        """Register the digest as the model's next version; return the existing version if it is registered already.

        Atomic, also when two processes register at once.
        """
        ...

    def get(self, model: str, reference: str) -> ModelVersion:
        """Return the version that a number or an alias names.

        Raises:
            NotFound: No version has that number or alias.
        """
        ...

    def all(self, model: str | None = None) -> list[ModelVersion]:
        """Return the versions of a model, or of all, newest first."""
        ...

    def set_alias(self, move: AliasMove, check: Check = lambda _: None) -> None:
        """Point the alias at version `move.new`, and record the move.

        Args:
            check: Called while nobody else can move the alias, with the transaction that moves it where there is one.
                If it raises, nothing moves.

        Raises:
            Invalid: The alias could be mistaken for a version number.
            NotFound: The version does not exist.
            Conflict: The alias no longer names `move.old`.
        """
        ...

    def moves(self, model: str, alias: str | None = None) -> list[AliasMove]:
        """Return the alias moves, newest first."""
        ...

    def remove(self, model: str, version: str) -> None:
        """Remove a version, if it exists. Its number is never reused, and its alias moves are kept.

        Raises:
            Conflict: An alias names the version.
        """
        ...


class Approvals(Protocol):
    """Approvals of versions, and their withdrawals. Every record is kept."""

    def add(self, approval: Approval) -> None:
        """Record an approval.

        Raises:
            Conflict: The approver has approved this version already.
        """
        ...

    def of(self, model: str, version: str | None = None) -> list[Approval]:
        """Return the valid approvals of a model or of one version, newest first."""
        ...

    def withdraw(self, model: str, version: str, approver: str, *, actor: str, reason: str, at: int) -> Withdrawal:
        """Withdraw an approval: it moves from `of` to `withdrawn`. Its approver may approve again.

        Raises:
            NotFound: There is no valid approval by the approver; a concurrent call may have withdrawn it.
        """
        ...

    def withdrawn(self, model: str, version: str | None = None) -> list[Withdrawal]:
        """Return the withdrawn approvals of a model or of one version, newest first."""
        ...


class Waivers(Protocol):
    """Waivers of gates. Every record is kept."""

    def add(self, waiver: Waiver) -> None:
        """Record a waiver."""
        ...

    def of(self, model: str, version: str | None = None) -> list[Waiver]:
        """Return the waivers of a model or of one version, newest first, also those that expired or were ended."""
        ...

    def end(self, model: str, version: str, gate: str, *, actor: str, at: int) -> Waiver:
        """End the waivers of a gate that were not ended before, and return the newest.

        Raises:
            NotFound: There is none; a concurrent call may have ended it.
        """
        ...


class Deletions(Protocol):
    """Versions marked for deletion."""

    def mark(self, deletion: Deletion) -> None:
        """Record a mark.

        Raises:
            Conflict: The version is marked already.
        """
        ...

    def unmark(self, model: str, version: str) -> bool:
        """Remove a mark that is not claimed; return whether there was one."""
        ...

    def claim(self, model: str, version: str) -> bool:
        """Claim a mark, so that it cannot be removed while it is carried out; return whether it exists.

        Claiming again is not an error: the process that claimed the mark before may have died.
        """
        ...

    def settle(self, model: str, version: str, *, carried_out: bool) -> None:
        """Remove a claimed mark that was carried out, or release its claim."""
        ...

    def all(self) -> list[Deletion]:
        """Return all marks, oldest first."""
        ...


class TrustedKeys(Protocol):
    """Public keys of other installations that are trusted here."""

    def add(self, key: TrustedKey) -> None:
        """Trust a key.

        Raises:
            Conflict: The key is trusted already, or its name is taken.
        """
        ...

    def remove(self, name: str) -> bool:
        """Stop trusting a key; return whether it was trusted."""
        ...

    def all(self) -> list[TrustedKey]:
        """Return all keys, sorted by name."""
        ...


class Blobs(Protocol):
    """Immutable sets of files, addressed by a digest. A blob is created once, as a whole."""

    def put(self, digest: str, files: Mapping[str, bytes]) -> None:
        """Store a blob; an existing one stays unchanged, and its time (see `stored`) is renewed.

        Raises:
            StorageFull: No space; nothing was stored.
            Conflict: The blob is being removed, and the removal takes too long.
        """
        ...

    def get(self, digest: str) -> Mapping[str, bytes]:
        """Return a blob's files, unverified: `registry.bundles` verifies them.

        Raises:
            NotFound: The blob does not exist.
            Corrupt: The blob holds something other than files.
        """
        ...

    def all(self) -> list[str]:
        """Return all digests."""
        ...

    def stored(self) -> Mapping[str, int]:
        """Return digest -> time of the last `put`, in UTC epoch microseconds by the store's own clock."""
        ...

    def delete(self, digest: str, *, stored_before: int | None = None) -> bool:
        """Remove a blob and return whether this call did; an unknown blob is not an error.

        Args:
            stored_before: Keep the blob if it was put at this time or later. Check and removal are atomic towards a
                `put` of the same blob, which either renews the blob before or stores it again after.
        """
        ...

    def sweep(self, before: int) -> int:
        """Remove the remains of writers that began before this time and died; return their number."""
        ...
