"""Versions that predict for a stream endpoint: the live one, and those of recorded batches."""

from __future__ import annotations

import time

from mainspring.core.errors import NotFound, Unavailable
from mainspring.core.schema import Schema
from mainspring.ledger.model import Log
from mainspring.ledger.recording import Recorder
from mainspring.project import Project
from mainspring.project.executors import executors
from mainspring.serving.plane.runtime import Runtime, load
from mainspring.serving.streaming.declaring import StreamEndpoint
from mainspring.serving.streaming.progress import BatchRecord
from mainspring.serving.streaming.scoring import BundlePredictor
from mainspring.serving.streaming.windows import Windows

_LOOK_S = 1.0


class Versions:
    """Predictors of one endpoint by bundle; the live one follows the routing table.

    During a rollout the control predicts: a stream has no requests to assign.
    """

    def __init__(self, project: Project, endpoint: StreamEndpoint) -> None:
        self._project = project
        self._endpoint = endpoint
        self._columns: Schema = {
            **endpoint.source.columns,
            **Windows(endpoint.windows, endpoint.source.columns).types,
        }
        self._runtimes: dict[str, Runtime] = {}
        self._predictors: dict[str, BundlePredictor] = {}
        self._recorders: dict[tuple[str, str], Recorder] = {}
        self._live: BundlePredictor | None = None
        self._revision = -1
        self._look_at = 0.0

    def live(self) -> BundlePredictor:
        """Return the live version.

        Raises:
            NotFound: No version was promoted.
            Unavailable: The catalog does not answer, and no version is known yet.
        """
        if self._live is not None and time.monotonic() < self._look_at:
            return self._live
        try:
            self._look()
        except Unavailable:
            if self._live is None:
                raise
        self._look_at = time.monotonic() + _LOOK_S
        assert self._live is not None
        return self._live

    def _look(self) -> None:
        revision = self._project.routes.revision()
        if self._live is not None and revision == self._revision:
            return
        route = self._project.routes.current().get(self._endpoint.name)
        if route is None:
            raise NotFound(
                f"No version is live behind the stream endpoint {self._endpoint.name!r}.",
                fix=f"run `mainspring promote {self._endpoint.model_name}`.",
            )
        arm = route.arms[0]
        self._live = self._of(route.model, arm.version, arm.digest)
        self._revision = revision

    def recorded(self, record: BatchRecord) -> BundlePredictor:
        """Return the version of a recorded batch."""
        return self._of(record.model, record.version, record.bundle)

    def recorder(self, record: BatchRecord) -> Recorder:
        """Return what logs the predictions of a batch; each survives a power cut before it counts as logged."""
        key = record.version, record.bundle
        if key not in self._recorders:
            runtime, policy = self._runtime(record.bundle), self._endpoint.log
            whole = Log(sync=True, personal=policy.personal, explanations=policy.explanations)
            self._recorders[key] = Recorder(
                self._project.prediction_log,
                endpoint=self._endpoint.name,
                model=record.model,
                version=record.version,
                digest=record.bundle,
                keys=runtime.key_names,
                personal=runtime.personal,
                policy=whole if policy.share == 1.0 else policy,
            )
        return self._recorders[key]

    def _of(self, model: str, version: str, digest: str) -> BundlePredictor:
        if digest not in self._predictors:
            made = BundlePredictor(model, version, self._runtime(digest), self._columns)
            self._predictors[digest] = made
        return self._predictors[digest]

    def _runtime(self, digest: str) -> Runtime:
        if digest not in self._runtimes:
            # On one thread: then an answer never depends on the number of processors.
            loader = executors(self._project, one_thread=True)
            self._runtimes[digest] = load(self._project.bundles.load(digest), self._project.online, loader)
        return self._runtimes[digest]
