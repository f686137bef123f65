"""What the registry needs of a backend: runs, versions with aliases, and blobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    Withdrawal,
)


class Tracking(Protocol):
    """Runs: parameters, metrics, tags, artefacts. Instants are kept to the millisecond at least.

    The tags `registry.runs.PARENT` and `registry.runs.NAME` say whose child a run is and what it is called; an adapter
    also writes them as its own tools read them.
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
        """Add to a run. A metric is (name, value, step, instant in µs); all metrics of a call are kept, or none.

        A tag that is there is replaced; a parameter stays as it is; of a metric the whole history is kept, the same
        (value, step, instant) once, and the newest (`RunRecord.metrics`) is the largest by step, instant, value.

        Raises:
            Conflict: A parameter has another value already.
            Invalid: A name is none that `registry.naming` allows. Nothing was kept.
            NotFound: There is no such run.
            StorageFull: No space.
            Unavailable: The store is locked, or does not answer.
        """
        ...

    def history(self, run_id: str, metric: str) -> list[tuple[float, int, int]]:
        """Return all that was logged of a metric as (value, step, instant in µs), by step, then instant.

        Raises:
            NotFound: There is no such run; of a metric that it has not the history is empty.
        """
        ...

    def log_artefact(self, run_id: str, name: str, content: bytes | Path) -> None:
        """Keep a file with the run; a file of that name is replaced. `name` may have folders, as in `plots/roc.png`.

        Raises:
            Invalid: `name` cannot name a file.
            NotFound: There is no such run, or no file `content`.
            StorageFull: No space.
        """
        ...

    def artefact(self, run_id: str, name: str) -> bytes:
        """Return a kept file.

        Raises:
            NotFound: The run or the file is unknown.
        """
        ...

    def artefacts(self, run_id: str) -> dict[str, int]:
        """Return the kept files' names, sorted, with their bytes.

        Raises:
            NotFound: There is no such run.
        """
        ...

    def active(self, run_id: str) -> AbstractContextManager[None]:
        """While it is entered, what this thread logs with the store's own client lands in the run."""
        ...

    def aside(self, run_id: str, name: str) -> AbstractContextManager[None]:
        """While it is entered, the store's own client logs nothing by itself, and nothing of what this thread logs with
        it lands in the run: if there is any, it gets a run of its own, called `name`, that is part of this one."""
        ...

    def finish(self, run_id: str, status: str, at: int) -> None:
        """Close a run as FINISHED, FAILED or KILLED."""
        ...

    def get(self, run_id: str) -> RunRecord:
        """Return a run.

        Raises:
            NotFound: There is none with this id.
        """
        ...

    def search(self, model: str | None = None, *, status: str | None = None, limit: int = 50) -> list[RunRecord]:
        """Return runs, newest first."""
        ...


class ModelVersions(Protocol):
    """Names for bundles: numbered versions of a model, and aliases that move between them."""

    def register(self, model: str, digest: str, run_id: str, tags: Mapping[str, str], at: int) -> ModelVersion:
        """Give the digest the model's next version; a digest that is registered already keeps its version.

        The version is there whole or not at all, also when two processes register at once.
        """
        ...

    def get(self, model: str, reference: str) -> ModelVersion:
        """Return the version that a number or an alias names.

        Raises:
            NotFound: There is none.
        """
        ...

    def all(self, model: str | None = None) -> list[ModelVersion]:
        """Return versions, newest first."""
        ...

    def set_alias(self, move: AliasMove) -> None:
        """Let the alias name version `move.new`, and keep the move.

        Raises:
            Invalid: The alias could be taken for a version's number.
            NotFound: There is no such version.
            Conflict: The alias does not name `move.old` any more.
        """
        ...

    def moves(self, model: str, alias: str | None = None) -> list[AliasMove]:
        """Return the alias moves, newest first."""
        ...

    def remove(self, model: str, version: str) -> None:
        """Forget a version; an unknown one is no error. Its number is never given again, its moves stay.

        Raises:
            Conflict: An alias names it.
        """
        ...


class Approvals(Protocol):
    """Who approved which version, and who took an approval back. Nothing is ever forgotten."""

    def add(self, approval: Approval) -> None:
        """Keep an approval.

        Raises:
            Conflict: The approver has approved this version already.
        """
        ...

    def of(self, model: str, version: str | None = None) -> list[Approval]:
        """Return the approvals that stand, of a model or of one version, newest first."""
        ...

    def withdraw(self, model: str, version: str, approver: str, *, actor: str, reason: str, at: int) -> Withdrawal:
        """Take an approval back: from now on `of` does not return it, and `withdrawn` does. Its approver may approve
        again.

        Raises:
            NotFound: The approver's approval does not stand, also because somebody else withdrew it just now.
        """
        ...

    def withdrawn(self, model: str, version: str | None = None) -> list[Withdrawal]:
        """Return what was taken back of a model or of one version, newest first."""
        ...


class Deletions(Protocol):
    """Versions that are to go."""

    def mark(self, deletion: Deletion) -> None:
        """Keep a mark.

        Raises:
            Conflict: The version is marked already.
        """
        ...

    def unmark(self, model: str, version: str) -> bool:
        """Take a mark back that nobody has claimed; return whether there was one."""
        ...

    def claim(self, model: str, version: str) -> bool:
        """Begin to carry a mark out, so that nobody takes it back; return whether there is one. Again, it is no error:
        whoever claimed it may have died."""
        ...

    def settle(self, model: str, version: str, *, carried_out: bool) -> None:
        """Forget a claimed mark that was carried out, or let it be a mark as before."""
        ...

    def all(self) -> list[Deletion]:
        """Return all marks, oldest first."""
        ...


class TrustedKeys(Protocol):
    """Keys of other installations that somebody here has said to trust."""

    def add(self, key: TrustedKey) -> None:
        """Trust a key.

        Raises:
            Conflict: It is trusted already, or its name is another key's.
        """
        ...

    def remove(self, name: str) -> bool:
        """Trust it no longer; return whether it was."""
        ...

    def all(self) -> list[TrustedKey]:
        """Return all, by name."""
        ...


class Blobs(Protocol):
    """Folders of bytes, addressed by a digest. A blob is created whole, once, and never changes."""

    def put(self, digest: str, files: Mapping[str, bytes]) -> None:
        """Store a blob; one that is there stays as it is, and becomes young (see `stored`).

        Raises:
            StorageFull: No space; nothing is there.
            Conflict: It is being removed at this moment, by somebody who takes long.
        """
        ...

    def get(self, digest: str) -> Mapping[str, bytes]:
        """Return a blob's files, unverified: `registry.bundles` verifies.

        Raises:
            NotFound: There is no such blob.
            Corrupt: Something other than files lies there.
        """
        ...

    def all(self) -> list[str]:
        """Return all digests."""
        ...

    def stored(self) -> Mapping[str, int]:
        """Return digest -> when it was last put, UTC epoch microseconds by the store's own clock."""
        ...

    def delete(self, digest: str, *, stored_before: int | None = None) -> bool:
        """Remove a blob and return whether this call did; an unknown one is no error.

        Args:
            stored_before: Leave it if it was put at this instant or later. Between this look and the removal no `put`
                of the same blob fits: it either makes the blob young before, or stores it anew after.
        """
        ...

    def sweep(self, before: int) -> int:
        """Remove what writers left behind that began before this instant and died; return how many there were."""
        ...
