"""In-memory adapters of the registry's ports, for tests and experiments."""

from __future__ import annotations

import math
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from mainspring.core.errors import NotFound
from mainspring.core.ids import check_id, new_id
from mainspring.core.time import Clock, SystemClock
from mainspring.registry.bundles import check_digest
from mainspring.registry.model import (
    AliasMove,
    ModelVersion,
    RunRecord,
    UnknownVersion,
    alias_conflict,
    check_alias,
    still_named,
)
from mainspring.registry.naming import check_artefact, check_names, param_conflict, read_artefact
from mainspring.registry.ports import Check


@dataclass
class _Run:
    record: RunRecord
    artefacts: dict[str, bytes] = field(default_factory=dict)
    history: dict[str, dict[tuple[int, int, float, bool], float]] = field(
        default_factory=dict
    )  # metric -> {(step, at, shown value, is NaN): value}


class MemoryTracking:
    """Thread-safe tracking store in a dictionary."""

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}
        self._lock = threading.Lock()

    def start(self, model: str, tags: Mapping[str, str], at: int) -> str:
        run_id = new_id()
        record = RunRecord(run_id, check_id(model, "model"), "RUNNING", at, None, {}, {}, dict(tags))
        with self._lock:
            self._runs[run_id] = _Run(record)
        return run_id

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        metrics: Sequence[tuple[str, float, int, int]] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        check_names({name for name, *_ in metrics}, "metric")
        check_names(params or {}, "parameter")
        check_names(tags or {}, "tag")
        with self._lock:
            run = self._run(run_id)
            known = run.record.params
            for name, text in (params or {}).items():
                if known.get(name, text) != text:
                    raise param_conflict(run_id, name, known[name], text)
            for name, value, step, at in metrics:
                shown = 0.0 if math.isnan(value) else value
                run.history.setdefault(name, {}).setdefault((step, at, shown, math.isnan(value)), value)
            newest = {name: of_name[max(of_name)] for name, of_name in run.history.items()}
            run.record = replace(
                run.record,
                params={**known, **(params or {})},
                metrics=newest,
                tags={**run.record.tags, **(tags or {})},
            )

    def history(self, run_id: str, metric: str) -> list[tuple[float, int, int]]:
        with self._lock:
            kept = self._run(run_id).history.get(metric, {})
            return [(value, step, at) for (step, at, _, _), value in sorted(kept.items(), key=lambda item: item[0])]

    def log_artefact(self, run_id: str, name: str, content: bytes | Path) -> None:
        with self._lock:
            kept = read_artefact(content)
            self._run(run_id).artefacts[check_artefact(name)] = kept

    def artefact(self, run_id: str, name: str) -> bytes:
        with self._lock:
            artefacts = self._run(run_id).artefacts
            if name not in artefacts:
                raise NotFound(f"Run {run_id} has no file {name!r}; it has {sorted(artefacts)}.")
            return artefacts[name]

    @contextmanager
    def artefact_file(self, run_id: str, name: str) -> Iterator[Path]:
        content = self.artefact(run_id, check_artefact(name))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name.rpartition("/")[2]
            path.write_bytes(content)
            yield path

    def delete_artefact(self, run_id: str, name: str) -> None:
        self.artefact(run_id, check_artefact(name))
        with self._lock:
            self._run(run_id).artefacts.pop(name, None)

    def artefacts(self, run_id: str) -> dict[str, int]:
        with self._lock:
            return {name: len(content) for name, content in sorted(self._run(run_id).artefacts.items())}

    def active(self, run_id: str) -> AbstractContextManager[None]:
        self.get(run_id)
        return nullcontext()

    def aside(self, run_id: str, name: str) -> AbstractContextManager[None]:
        self.get(run_id)
        check_names([name], "run")
        return nullcontext()

    def finish(self, run_id: str, status: str, at: int) -> None:
        with self._lock:
            run = self._run(run_id)
            run.record = replace(run.record, status=status, ended_at=at)

    def get(self, run_id: str) -> RunRecord:
        with self._lock:
            return self._run(run_id).record

    def search(self, model: str | None = None, *, status: str | None = None, limit: int = 50) -> list[RunRecord]:
        with self._lock:
            records = [run.record for run in self._runs.values()]
        wanted = [record for record in records if model in (None, record.model) and status in (None, record.status)]
        wanted.reverse()  # the sort is stable: of equal times, the later run comes first
        return sorted(wanted, key=lambda record: -record.started_at)[:limit]

    def deleted(self) -> list[RunRecord]:
        return []

    def _run(self, run_id: str) -> _Run:
        if run_id not in self._runs:
            raise NotFound(f"There is no run {run_id!r}.", fix="`mainspring runs` lists them.")
        return self._runs[run_id]


class MemoryVersions:
    """Thread-safe store of versions and aliases in lists."""

    def __init__(self) -> None:
        self._versions: list[ModelVersion] = []
        self._counts: Counter[str] = Counter()
        self._moves: list[AliasMove] = []
        self._lock = threading.Lock()

    def register(self, model: str, digest: str, run_id: str, tags: Mapping[str, str], at: int) -> ModelVersion:
        check_digest(digest)
        with self._lock:
            of_model = [version for version in self._versions if version.model == check_id(model, "model")]
            for version in of_model:
                if version.digest == digest:
                    return self._with_aliases(version)
            self._counts[model] += 1
            made = ModelVersion(model, str(self._counts[model]), digest, run_id, at, dict(tags))
            self._versions.append(made)
            return made

    def get(self, model: str, reference: str) -> ModelVersion:
        with self._lock:
            return self._get(model, reference)

    def _get(self, model: str, reference: str) -> ModelVersion:
        number = reference if reference.isdigit() else self._aliases(model).get(reference)
        for version in self._versions:
            if version.model == model and version.version == number:
                return self._with_aliases(version)
        raise UnknownVersion(model, reference)

    def all(self, model: str | None = None) -> list[ModelVersion]:
        with self._lock:
            wanted = [self._with_aliases(version) for version in self._versions if model in (None, version.model)]
        wanted.reverse()  # the sort is stable: of equal times, the later version comes first
        return sorted(wanted, key=lambda version: -version.created_at)

    def set_alias(self, move: AliasMove, check: Check = lambda _: None) -> None:
        check_alias(move.alias)
        with self._lock:
            self._get(move.model, move.new)
            present = self._aliases(move.model).get(move.alias)
            if present != move.old:
                raise alias_conflict(move, present)
            check(None)
            self._moves.append(move)

    def moves(self, model: str, alias: str | None = None) -> list[AliasMove]:
        with self._lock:
            return [move for move in reversed(self._moves) if move.model == model and alias in (None, move.alias)]

    def remove(self, model: str, version: str) -> None:
        with self._lock:
            for found in [each for each in self._versions if (each.model, each.version) == (model, version)]:
                named = self._with_aliases(found)
                if named.aliases:
                    raise still_named(named)
                self._versions.remove(found)

    def _aliases(self, model: str) -> dict[str, str]:
        return {move.alias: move.new for move in self._moves if move.model == model}

    def _with_aliases(self, version: ModelVersion) -> ModelVersion:
        named = sorted(alias for alias, number in self._aliases(version.model).items() if number == version.version)
        return replace(version, aliases=tuple(named))


class MemoryBlobs:
    """Thread-safe blob store in a dictionary."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._blobs: dict[str, tuple[int, dict[str, bytes]]] = {}
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()

    def put(self, digest: str, files: Mapping[str, bytes]) -> None:
        for name in files:
            check_id(name, "file of a blob")
        with self._lock:
            _, kept = self._blobs.get(check_digest(digest), (0, dict(files)))
            self._blobs[digest] = (self._clock.now(), kept)

    def get(self, digest: str) -> Mapping[str, bytes]:
        with self._lock:
            if check_digest(digest) not in self._blobs:
                raise NotFound(f"The blob {digest[:12]} does not exist.")
            return dict(self._blobs[digest][1])

    def all(self) -> list[str]:
        return sorted(self.stored())

    def stored(self) -> dict[str, int]:
        with self._lock:
            return {digest: at for digest, (at, _) in self._blobs.items()}

    def delete(self, digest: str, *, stored_before: int | None = None) -> bool:
        check_digest(digest)
        with self._lock:
            at = self._blobs.get(digest, (0, {}))[0]
            if digest not in self._blobs or (stored_before is not None and at >= stored_before):
                return False
            del self._blobs[digest]
            return True

    def sweep(self, before: int) -> int:  # noqa: ARG002
        return 0
