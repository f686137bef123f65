"""Versions that predict for a stream endpoint: the live one, and those of recorded batches."""

from __future__ import annotations

import logging
import time

from mainspring.core.errors import MainspringError, NotFound, Unavailable
from mainspring.core.schema import Schema
from mainspring.ledger.model import Log
from mainspring.ledger.recording import Recorder
from mainspring.project import Project
from mainspring.project.executors import executors
from mainspring.serving.model import Route
from mainspring.serving.plane.runtime import Runtime, load
from mainspring.serving.streaming.arms import Arms
from mainspring.serving.streaming.declaring import StreamEndpoint
from mainspring.serving.streaming.progress import Made
from mainspring.serving.streaming.scoring import BundlePredictor
from mainspring.serving.streaming.windows import Windows

_LOOK_S = 1.0
_log = logging.getLogger(__name__)


class Versions:
    """Predictors of one endpoint by bundle; the live ones follow the routing table."""

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
        self._live: Arms | None = None
        self._revision = -1
        self._look_at = 0.0

    def live(self) -> Arms:
        """Return the live versions.

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
        self._live = self._arms(route)
        self._revision = revision

    def _arms(self, route: Route) -> Arms:
        """Return the versions of a route; the control alone while a candidate cannot be loaded."""
        control = self._of(route.model, route.arms[0].version, route.arms[0].digest)
        named = control.runtime.key_names
        of = self._endpoint.source.columns
        keys = [name for name in ((route.by,) if route.by in named else named) if name in of]
        versions = [control]
        for arm in route.arms[1:]:
            try:
                versions.append(self._of(route.model, arm.version, arm.digest))
            except Unavailable:
                raise
            except MainspringError as error:
                _log.warning("%s: version %s does not predict: %s", self._endpoint.name, arm.version, error)
                return Arms([control])
        return Arms(versions, route, keys or self._endpoint.keys)

    def recorded(self, made: Made) -> BundlePredictor:
        """Return the version that predicted a part of a recorded batch."""
        return self._of(made.model, made.version, made.bundle)

    def recorder(self, made: Made) -> Recorder:
        """Return what logs the predictions of a version; each survives a power cut before it counts as logged."""
        key = made.version, made.bundle
        if key not in self._recorders:
            runtime, policy = self._runtime(made.bundle), self._endpoint.log
            whole = Log(sync=True, personal=policy.personal, explanations=policy.explanations)
            self._recorders[key] = Recorder(
                self._project.prediction_log,
                endpoint=self._endpoint.name,
                model=made.model,
                version=made.version,
                digest=made.bundle,
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
