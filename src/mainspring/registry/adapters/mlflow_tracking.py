"""Tracking store on MLflow, readable by MLflow's own tools. A model is an experiment."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.files import disk_errors, sync_folder, write_atomic
from mainspring.core.ids import check_id
from mainspring.registry.adapters import mlflow_metrics
from mainspring.registry.adapters.mlflow_active import active, aside
from mainspring.registry.adapters.mlflow_store import ENTITIES, analyse, gone, mlflow, open_store, store_errors
from mainspring.registry.adapters.mlflow_tables import runs
from mainspring.registry.model import RunRecord
from mainspring.registry.naming import check_artefact, check_file, check_names, param_conflict
from mainspring.registry.runs import NAME, NOTE, PARENT

_METRICS, _PARAMS, _TAGS = 1000, 100, 100  # limits of one `log_batch`
_OURS = "mlflow."  # prefix of MLflow's own tags
# Mainspring's tag -> the equivalent tag that MLflow's UI reads
_THEIRS = {
    PARENT: "mlflow.parentRunId",
    NAME: "mlflow.runName",
    NOTE: "mlflow.note.content",
    "code_version": "mlflow.source.git.commit",
}
T = TypeVar("T")
_PAGE = 10_000  # MLflow puts every run id into one statement, and SQLite allows 32,766 values


class MlflowTracking:
    """Runs in MLflow's SQLAlchemy store. The first call imports MLflow and opens the store.

    Args:
        url: SQLAlchemy URL, such as `sqlite:////project/.mainspring/tracking.db`.
        artefacts: Folder of the runs' artefacts.
        patience_s: Seconds to wait for a database that another process has locked.
    """

    def __init__(self, url: str, artefacts: Path, *, patience_s: float = 20.0) -> None:
        self._url = url
        self._artefacts = artefacts
        self._patience_s = patience_s
        self._experiments: dict[str, str] = {}  # model -> experiment id
        self._file: Path | None = None  # the database file, on SQLite
        self._inode = 0

    @cached_property
    def _opened(self) -> Any:
        store = open_store("mlflow.store.tracking.sqlalchemy_store", self._url, str(self._artefacts))
        self._artefacts.mkdir(parents=True, exist_ok=True, mode=0o700)
        if store.engine.dialect.name == "sqlite":
            self._file = Path(str(store.engine.url.database))
            self._inode = self._file.stat().st_ino
        return store

    @property
    def _store(self) -> Any:
        """The open store.

        Raises if the SQLite file was deleted or replaced: SQLite would silently go on writing into the deleted file.
        """
        store = self._opened
        if self._file is not None:
            try:
                inode = self._file.stat().st_ino
            except OSError as error:
                raise gone(str(self._file), error.strerror or str(error)) from error
            if inode != self._inode:
                raise gone(str(self._file), "another file has its name now")
        return store

    def close(self) -> None:
        """Close the connections; SQLite then merges its write-ahead log into the database file."""
        self._opened.engine.dispose()

    def start(self, model: str, tags: Mapping[str, str], at: int) -> str:
        check_names(tags, "tag")
        store, entities = self._store, mlflow(ENTITIES)
        with store_errors(self._url):
            run = store.create_run(
                self._experiment(check_id(model, "model"), create=True),
                user_id="mainspring",
                start_time=at // 1000,
                tags=[entities.RunTag(key, value) for key, value in _with_theirs(tags).items()],
                run_name=None,
            )
        return str(run.info.run_id)

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
        store, entities = self._store, mlflow(ENTITIES)
        named = [entities.Param(name, value) for name, value in (params or {}).items()]
        tagged = [entities.RunTag(name, value) for name, value in _with_theirs(tags or {}).items()]
        if named or not metrics:
            known = self.get(run_id).params
            for param in named:
                if known.get(param.key, param.value) != param.value:
                    raise param_conflict(run_id, param.key, known[param.key], param.value)
        with store_errors(self._url):
            if metrics:
                self._log_metrics(run_id, metrics)
            for part in _chunks(named, _PARAMS):
                store.log_batch(run_id, metrics=[], params=part, tags=[])
            for part in _chunks(tagged, _TAGS):
                store.log_batch(run_id, metrics=[], params=[], tags=part)

    def _log_metrics(self, run_id: str, metrics: Sequence[tuple[str, float, int, int]]) -> None:
        if mlflow_metrics.can_write(self._store.engine):
            mlflow_metrics.write(self._store.engine, run_id, metrics, patience_s=self._patience_s)
            return
        entity = mlflow(ENTITIES).Metric
        for part in _chunks([entity(name, value, at // 1000, step) for name, value, step, at in metrics], _METRICS):
            self._store.log_batch(run_id, metrics=part, params=[], tags=[])

    def history(self, run_id: str, metric: str) -> list[tuple[float, int, int]]:
        self.get(run_id)
        with store_errors(self._url):
            found = self._store.get_metric_history(run_id, metric)
        kept = [(each.value, each.step, each.timestamp * 1000) for each in found]
        return sorted(kept, key=lambda entry: (entry[1], entry[2], entry[0]))

    def log_artefact(self, run_id: str, name: str, content: bytes | Path) -> None:
        self._files(run_id).put(name, content)

    def artefact(self, run_id: str, name: str) -> bytes:
        return self._files(run_id).get(name)

    def artefact_file(self, run_id: str, name: str) -> AbstractContextManager[Path]:
        return nullcontext(self._files(run_id).path(name))

    def delete_artefact(self, run_id: str, name: str) -> None:
        self._files(run_id).path(name).unlink(missing_ok=True)

    def artefacts(self, run_id: str) -> dict[str, int]:
        return self._files(run_id).all()

    def active(self, run_id: str) -> AbstractContextManager[None]:
        self.get(run_id)
        return active(self._url, self._store, run_id)

    def aside(self, run_id: str, name: str) -> AbstractContextManager[None]:
        return aside(self._url, self._store, run_id, {_THEIRS[PARENT]: run_id, _THEIRS[NAME]: name, PARENT: run_id})

    def finish(self, run_id: str, status: str, at: int) -> None:
        entities = mlflow(ENTITIES)
        self.get(run_id)
        with store_errors(self._url):
            self._store.update_run_info(run_id, entities.RunStatus.from_string(status), at // 1000, None)
            analyse(self._store.engine, "runs")

    def get(self, run_id: str) -> RunRecord:
        check_id(run_id, "run")
        try:
            with store_errors(self._url):
                return self._record(self._store.get_run(run_id))
        except NotFound:
            raise _unknown(run_id) from None

    def search(self, model: str | None = None, *, status: str | None = None, limit: int = 50) -> list[RunRecord]:
        view = mlflow(ENTITIES).ViewType
        with store_errors(self._url):
            if model is None:
                experiments = self._every_experiment(view.ACTIVE_ONLY)
            else:
                known = self._experiment(model, create=False)
                experiments = [known] if known else []
            wanted = f"attributes.status = '{check_id(status, 'status')}'" if status else ""
            return self._newest(experiments, wanted, view.ACTIVE_ONLY, limit)

    def deleted(self) -> list[RunRecord]:
        view = mlflow(ENTITIES).ViewType
        with store_errors(self._url):
            return self._newest(self._every_experiment(view.ALL), "", view.DELETED_ONLY, sys.maxsize)

    def _every_experiment(self, view: Any) -> list[str]:
        found = self._store.search_experiments(view, max_results=50_000)
        self._experiments.update({experiment.name: experiment.experiment_id for experiment in found})
        return [experiment.experiment_id for experiment in found]

    def _newest(self, experiments: list[str], wanted: str, view: Any, limit: int) -> list[RunRecord]:
        if not experiments:
            return []
        ask, newest = partial(self._store.search_runs, experiments, wanted, view), ["attributes.start_time DESC"]
        return [self._record(run) for run in read_pages(lambda most, at: ask(most, newest, at), limit)]

    def _experiment(self, model: str, *, create: bool) -> str:
        if model not in self._experiments:
            found = self._store.get_experiment_by_name(model)
            if found is not None:
                self._experiments[model] = str(found.experiment_id)
            elif create:
                try:
                    self._experiments[model] = str(self._store.create_experiment(model))
                except Exception:  # created meanwhile by another process, or not possible at all
                    found = self._store.get_experiment_by_name(model)
                    if found is None:
                        raise
                    self._experiments[model] = str(found.experiment_id)
        return self._experiments.get(model, "")

    def _record(self, run: Any) -> RunRecord:
        info, data = run.info, run.data
        if info.experiment_id not in self._experiments.values():
            experiment = self._store.get_experiment(info.experiment_id)
            self._experiments[experiment.name] = str(info.experiment_id)
        model = next(name for name, number in self._experiments.items() if number == info.experiment_id)
        return RunRecord(
            id=info.run_id,
            model=model,
            status=info.status,
            started_at=info.start_time * 1000,
            ended_at=None if info.end_time is None else info.end_time * 1000,
            params=dict(data.params),
            metrics=dict(data.metrics),
            tags={**_said_by_mlflow(data.tags), **_without_theirs(data.tags), **_noted_by_mlflow(data.tags)},
        )

    def _files(self, run_id: str) -> _RunFiles:
        wanted = sa.select(runs.c.experiment_id).where(runs.c.run_uuid == check_id(run_id, "run"))
        with store_errors(self._url), self._store.engine.connect() as connection:  # a run may have very many metrics
            number = connection.execute(wanted).scalar()
        if number is None:
            raise _unknown(run_id)
        # the place that MLflow expects, below the configured folder; a path from its database is never used
        return _RunFiles(self._artefacts / str(number) / run_id / "artifacts", run_id)


def _with_theirs(tags: Mapping[str, str]) -> dict[str, str]:
    return {**{_THEIRS[name]: value for name, value in tags.items() if name in _THEIRS}, **tags}


def _unknown(run_id: str) -> NotFound:
    return NotFound(f"There is no run {run_id!r}.", fix="`mainspring runs` lists them.")


def _without_theirs(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in tags.items() if not name.startswith(_OURS)}


def _said_by_mlflow(tags: Mapping[str, str]) -> dict[str, str]:
    """Return Mainspring's parent and name tags for a run that MLflow's own client nested in another."""
    named = (PARENT, NAME) if _THEIRS[PARENT] in tags else ()
    return {name: tags[_THEIRS[name]] for name in named if _THEIRS[name] in tags}


def _noted_by_mlflow(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the note, which MLflow's own tools change only in their form."""
    return {NOTE: tags[_THEIRS[NOTE]]} if _THEIRS[NOTE] in tags else {}


def _chunks(items: Sequence[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


def read_pages(ask: Callable[[int, str | None], Any], limit: int, *, page: int = _PAGE) -> list[Any]:
    """Return up to `limit` MLflow runs without duplicates, even if runs are added meanwhile.

    Args:
        ask: Called with a page size and a page token (None at first); its result has the next page's `token`.
    """
    found: dict[str, Any] = {}
    token = None
    while len(found) < limit:
        part = ask(min(page, limit - len(found)), token)
        found.update((run.info.run_id, run) for run in part)
        token = part.token
        if not token:
            break
    return list(found.values())


class _RunFiles:
    """Artefacts of one run, below `folder`, where MLflow's own tools expect them. Symbolic links are never followed."""

    def __init__(self, folder: Path, run_id: str) -> None:
        self._folder = folder
        self._run_id = run_id

    def put(self, name: str, content: bytes | Path) -> None:
        """Store a file, replacing one of the same name atomically.

        Raises:
            Invalid: `name` is not a valid file name, or passes through a link or a file.
            NotFound: The file `content` does not exist.
            StorageFull: No space.
        """
        path = self._path(name)
        for folder in self._folders(path):
            if folder.is_symlink() or folder.is_file():
                raise Invalid(
                    f"{name!r} leads through {folder.name!r}, which is not a folder of the run.", fix="rename it."
                )
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if isinstance(content, Path):
            _copy(content, path)
        else:
            write_atomic(path, content)

    def get(self, name: str) -> bytes:
        """Return the content of a file. Raises as `path` does."""
        return self.path(name).read_bytes()

    def path(self, name: str) -> Path:
        """Return the path of a file.

        Raises:
            NotFound: The file does not exist, or is a link.
        """
        path = self._path(name)
        if any(folder.is_symlink() for folder in (*self._folders(path), path)) or not path.is_file():
            raise NotFound(f"Run {self._run_id} has no file {name!r}; it has {sorted(self.all())}.")
        return path

    def all(self) -> dict[str, int]:
        """Return name -> size in bytes of every file, sorted by name."""
        return dict(sorted(self._sizes()))

    def _sizes(self) -> Iterator[tuple[str, int]]:
        for folder, _, names in os.walk(self._folder):  # does not follow links
            for name in names:
                path = Path(folder) / name
                if not path.is_symlink() and not name.startswith("."):  # partial files begin with a dot
                    yield path.relative_to(self._folder).as_posix(), path.stat().st_size

    def _path(self, name: str) -> Path:
        return self._folder / check_artefact(name)

    def _folders(self, path: Path) -> list[Path]:
        """Return the folders between the run's own folder and the file."""
        return list(path.parents)[: len(path.relative_to(self._folder).parts) - 1]


def _copy(source: Path, path: Path) -> None:
    check_file(source)
    beside = path.with_name(f".{path.name}.{os.urandom(6).hex()}.partial")
    with disk_errors(path):
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as to, source.open("rb") as read:
                shutil.copyfileobj(read, to, 1 << 20)
                to.flush()
                os.fsync(to.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        sync_folder(path.parent)
