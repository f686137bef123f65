"""What the registry needs of a backend: runs, versions with aliases, and blobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from mainspring.registry.model import AliasMove, ModelVersion, RunRecord


class Tracking(Protocol):
    """Runs: parameters, metrics, tags, artefacts. Instants are kept to the millisecond at least."""

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
        """Add to a run. A metric is (name, value, step, instant in µs).

        A tag or metric that is there is replaced (`RunRecord.metrics` holds the newest); a parameter stays as it is.

        Raises:
            NotFound: There is no such run.
        """
        ...

    def log_artefact(self, run_id: str, name: str, content: bytes) -> None:
        """Keep a file with the run; a file of that name is replaced.

        Raises:
            Invalid: `name` cannot name a file.
            NotFound: There is no such run.
            StorageFull: No space.
        """
        ...

    def artefact(self, run_id: str, name: str) -> bytes:
        """Return a kept file.

        Raises:
            NotFound: The run or the file is unknown.
        """
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


class Blobs(Protocol):
    """Folders of bytes, addressed by a digest. A blob is created whole, once, and never changes."""

    def put(self, digest: str, files: Mapping[str, bytes]) -> None:
        """Store a blob; one that is there stays as it is, and becomes young (see `stored`).

        Raises:
            StorageFull: No space; nothing is there.
        """
        ...

    def get(self, digest: str) -> Mapping[str, bytes]:
        """Return a blob's files, unverified: `registry.bundles` verifies.

        Raises:
            NotFound: There is no such blob.
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
