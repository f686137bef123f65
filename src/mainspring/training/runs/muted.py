"""The run of a rank that is not the first of its training: it takes what is logged, and keeps nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from mainspring.core.errors import NotFound
from mainspring.registry.model import RunRecord


class MutedTracking:
    """A tracking store that keeps nothing: what the first rank logs is what all would."""

    def start(self, model: str, tags: Mapping[str, str], at: int) -> str:  # noqa: ARG002
        return "muted"

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        metrics: Sequence[tuple[str, float, int, int]] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Keep nothing."""

    def history(self, run_id: str, metric: str) -> list[tuple[float, int, int]]:  # noqa: ARG002
        return []

    def log_artefact(self, run_id: str, name: str, content: bytes | Path) -> None:
        """Keep nothing."""

    def artefact(self, run_id: str, name: str) -> bytes:
        raise _missing(run_id, name)

    def artefact_file(self, run_id: str, name: str) -> AbstractContextManager[Path]:
        raise _missing(run_id, name)

    def delete_artefact(self, run_id: str, name: str) -> None:
        raise _missing(run_id, name)

    def artefacts(self, run_id: str) -> dict[str, int]:  # noqa: ARG002
        return {}

    def active(self, run_id: str) -> AbstractContextManager[None]:  # noqa: ARG002
        return nullcontext()

    def aside(self, run_id: str, name: str) -> AbstractContextManager[None]:  # noqa: ARG002
        return nullcontext()

    def finish(self, run_id: str, status: str, at: int) -> None:
        """Keep nothing."""

    def get(self, run_id: str) -> RunRecord:
        return RunRecord(run_id, "", "RUNNING", 0, None, {}, {}, {})

    def search(self, model: str | None = None, *, status: str | None = None, limit: int = 50) -> list[RunRecord]:  # noqa: ARG002
        return []

    def deleted(self) -> list[RunRecord]:
        return []


def _missing(run_id: str, name: str) -> NotFound:
    return NotFound(f"Run {run_id} keeps no file {name!r} in this process.", fix="read it in the first rank alone.")
