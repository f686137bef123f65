"""Runs in MLflow's tracking store, so that MLflow's own tools can read them too. A model is an experiment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from mainspring.core.errors import NotFound
from mainspring.core.files import write_atomic
from mainspring.core.ids import check_id
from mainspring.registry.adapters.mlflow_store import ENTITIES, analyse, mlflow, open_store, store_errors
from mainspring.registry.model import RunRecord

_METRICS, _PARAMS, _TAGS = 1000, 100, 100  # the most that one log_batch takes
_OURS = "mlflow."  # tags that the store adds itself
T = TypeVar("T")


class MlflowTracking:
    """Runs in MLflow's SQLAlchemy store; opened, and MLflow imported, with the first call.

    Args:
        url: SQLAlchemy URL, such as `sqlite:////project/.mainspring/tracking.db`.
        artefacts: The folder of the runs' files.
    """

    def __init__(self, url: str, artefacts: Path) -> None:
        self._url = url
        self._artefacts = artefacts
        self._experiments: dict[str, str] = {}  # model -> experiment id

    @cached_property
    def _store(self) -> Any:
        store = open_store("mlflow.store.tracking.sqlalchemy_store", self._url, str(self._artefacts))
        self._artefacts.mkdir(parents=True, exist_ok=True, mode=0o700)
        return store

    def close(self) -> None:
        """Let go of the database; its file is whole then, without a log beside it."""
        self._store.engine.dispose()

    def start(self, model: str, tags: Mapping[str, str], at: int) -> str:
        store, entities = self._store, mlflow(ENTITIES)
        with store_errors(self._url):
            run = store.create_run(
                self._experiment(check_id(model, "model"), create=True),
                user_id="mainspring",
                start_time=at // 1000,
                tags=[entities.RunTag(key, value) for key, value in tags.items()],
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
        store, entities = self._store, mlflow(ENTITIES)
        self.get(run_id)
        measured = [entities.Metric(name, value, at // 1000, step) for name, value, step, at in metrics]
        named = [entities.Param(name, value) for name, value in (params or {}).items()]
        tagged = [entities.RunTag(name, value) for name, value in (tags or {}).items()]
        with store_errors(self._url):
            for part in _chunks(measured, _METRICS):
                store.log_batch(run_id, metrics=part, params=[], tags=[])
            for part in _chunks(named, _PARAMS):
                store.log_batch(run_id, metrics=[], params=part, tags=[])
            for part in _chunks(tagged, _TAGS):
                store.log_batch(run_id, metrics=[], params=[], tags=part)

    def log_artefact(self, run_id: str, name: str, content: bytes) -> None:
        write_atomic(self._artefact_path(run_id, name), content)

    def artefact(self, run_id: str, name: str) -> bytes:
        path = self._artefact_path(run_id, name)
        if path.is_symlink() or not path.is_file():
            raise NotFound(f"Run {run_id} keeps no file {name!r}.")
        return path.read_bytes()

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
            raise NotFound(f"There is no run {run_id!r}.", fix="`mainspring runs` lists them.") from None

    def search(self, model: str | None = None, *, status: str | None = None, limit: int = 50) -> list[RunRecord]:
        store, entities = self._store, mlflow(ENTITIES)
        with store_errors(self._url):
            if model is None:
                found = store.search_experiments(entities.ViewType.ACTIVE_ONLY, max_results=50_000)
                self._experiments.update({experiment.name: experiment.experiment_id for experiment in found})
                experiments = [experiment.experiment_id for experiment in found]
            else:
                known = self._experiment(model, create=False)
                experiments = [known] if known else []
            if not experiments:
                return []
            runs = store.search_runs(
                experiments,
                f"attributes.status = '{check_id(status, 'status')}'" if status else "",
                entities.ViewType.ACTIVE_ONLY,
                limit,
                ["attributes.start_time DESC"],
            )
            return [self._record(run) for run in runs]

    def _experiment(self, model: str, *, create: bool) -> str:
        if model not in self._experiments:
            found = self._store.get_experiment_by_name(model)
            if found is not None:
                self._experiments[model] = str(found.experiment_id)
            elif create:
                try:
                    self._experiments[model] = str(self._store.create_experiment(model))
                except Exception:  # another process created it meanwhile, or it cannot be
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
            tags={name: value for name, value in data.tags.items() if not name.startswith(_OURS)},
        )

    def _artefact_path(self, run_id: str, name: str) -> Path:
        run = self.get(run_id)
        number = self._experiments[run.model]
        # where MLflow looks for them, relative to the folder we were given, never by a path out of its database
        return self._artefacts / number / run.id / "artifacts" / check_id(name, "file of a run")


def _chunks(items: Sequence[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part
