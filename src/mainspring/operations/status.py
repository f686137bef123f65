"""Status of the live system, in one document."""

from __future__ import annotations

import msgspec

from mainspring.core.errors import MainspringError
from mainspring.core.time import format_instant
from mainspring.monitoring.model import VersionQuality
from mainspring.monitoring.service.burning import ObjectiveReport
from mainspring.operations.answering_status import (
    AnswersStatus,
    LanguageModelStatus,
    answers_statuses,
    model_statuses,
)
from mainspring.operations.collection_checks import CollectionStatus, collection_statuses
from mainspring.operations.defending import in_words
from mainspring.operations.device_checks import DeviceStatus, device_statuses
from mainspring.operations.endpoint_checks import problem_of
from mainspring.operations.incidents import importance
from mainspring.operations.scaling import Live, live
from mainspring.operations.service.objectives import objectives
from mainspring.operations.streams.reports import listed
from mainspring.project import Project
from mainspring.project.running import Running, alive, read_running
from mainspring.serving.load.use import CacheUse, Use


class EndpointStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint: its versions and its newest window."""

    endpoint: str
    model: str
    versions: dict[str, float]  # version -> share of the traffic
    digest: str | None
    predictions: int
    quality: dict[str, float]  # of the newest window with labels, all versions together
    coverage: float | None  # of that window; of the newest one if none has labels
    drifted_columns: list[str]  # of the newest judged window
    alerting_columns: list[str]  # those that drifted in the judged window before it, too
    problem: str = ""  # reason why it serves nothing, with the fix
    quality_by_version: dict[str, VersionQuality] = {}  # version that predicted -> quality in the same window
    objectives: list[ObjectiveReport] = []
    shed: str = ""  # the share of requests that is refused on purpose, in words
    executors: int | None = None  # over the processes of this machine's gateway; `None` if none answers
    model_bytes: int | None = None  # of its models in memory, likewise
    cache: CacheUse | None = None  # of an endpoint with a cache, likewise
    devices: list[DeviceStatus] = []  # that its versions run on, but for what was to run on the processor and does


class OpenIncident(msgspec.Struct, frozen=True, kw_only=True):
    """An open incident; `level` is page or ticket."""

    id: str
    level: str
    cause: str
    endpoints: tuple[str, ...]
    detail: str  # of its worst symptom
    since: str
    owner: str


class SourceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One source's table."""

    source: str
    version: int | None


class StreamLine(msgspec.Struct, frozen=True, kw_only=True):
    """One stream, of a source or of a stream endpoint; `mainspring streams show` has the rest."""

    stream: str
    kind: str
    state: str
    lag: int | None
    lag_s: float | None
    problem: str


class StoreStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The online store: its address, and the reason why it does not respond, empty if it does."""

    address: str
    problem: str


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The project at a glance."""

    project: str
    profile: str
    up: Running | None
    endpoints: list[EndpointStatus]
    sources: list[SourceStatus]
    online: StoreStatus
    damaged_segments: int = 0  # damaged segments of the prediction log
    incidents: list[OpenIncident] = []  # the most important first
    streams: list[StreamLine] = []
    collections: list[CollectionStatus] = []
    language_models: list[LanguageModelStatus] = []
    answers: list[AnswersStatus] = []
    invalid_policies: list[str] = []  # one line a file of the project's policies that is not valid


def status(project: Project) -> Status:
    """Return the project at a glance."""
    from mainspring.operations.policies import invalid_policies

    running = read_running(project.settings.state)
    told = live(project)
    if running is not None and not alive(running.pid):
        running = None
    return Status(
        project=project.settings.project,
        profile=project.settings.profile,
        up=running,
        endpoints=[endpoint_status(project, name, told) for name in project.definitions.endpoints],
        sources=[SourceStatus(source=name, version=project.lake.version(name)) for name in project.definitions.sources],
        online=_online(project),
        damaged_segments=project.predictions.damaged(),
        incidents=open_incidents(project),
        invalid_policies=invalid_policies(project),
        collections=collection_statuses(project),
        language_models=model_statuses(project),
        answers=answers_statuses(project),
        streams=[
            StreamLine(
                stream=each.stream, kind=each.kind, state=each.state, lag=each.lag, lag_s=each.lag_s,
                problem=each.problem,
            )
            for each in listed(project)
        ],
    )  # fmt: skip


def open_incidents(project: Project, endpoint: str | None = None) -> list[OpenIncident]:
    """Return the open incidents, of one endpoint or of all, the most important first."""
    return [
        OpenIncident(
            id=each.id,
            level=each.level,
            cause=str(each.cause),
            endpoints=each.endpoints,
            detail=max(each.symptoms, key=lambda symptom: symptom.severity).detail,
            since=format_instant(each.started),
            owner=each.owner,
        )
        for each in sorted(project.incidents.open(), key=importance)
        if endpoint is None or endpoint in each.endpoints
    ]


def _online(project: Project) -> StoreStatus:
    try:
        project.online.ping()
    except MainspringError as error:
        return StoreStatus(address=project.settings.online.shown, problem=str(error))
    return StoreStatus(address=project.settings.online.shown, problem="")


def endpoint_status(project: Project, name: str, told: Live | None = None) -> EndpointStatus:
    """Return one endpoint at a glance.

    Args:
        told: Numbers of the gateway; by default it is asked.

    Raises:
        NotFound: There is no such endpoint.
    """
    declared = project.definitions.endpoint(name)
    route = project.routes.current().get(name)
    windows = project.monitors.windows(name)
    newest = next((window for window in reversed(windows) if window.labels), windows[-1] if windows else None)
    judged = next((window for window in reversed(windows) if window.judged), None)
    told = live(project) if told is None else told
    use = told.uses.endpoints.get(name, Use()) if told.processes else None
    return EndpointStatus(
        endpoint=name,
        problem=problem_of(project, declared),
        model=declared.model,
        versions={} if route is None else {arm.version: arm.weight for arm in route.arms},
        digest=None if route is None else route.arms[0].digest,
        predictions=sum(window.predictions for window in windows),
        quality={} if newest is None else newest.quality,
        coverage=None if newest is None else newest.coverage,
        drifted_columns=[] if judged is None else judged.drifted,
        alerting_columns=[] if judged is None else judged.alerts,
        quality_by_version={} if newest is None else newest.by_predictor,
        objectives=objectives(project, name),
        shed=in_words(project, name),
        executors=None if use is None else use.executors,
        model_bytes=None if use is None else use.nbytes,
        cache=None if use is None else use.cache,
        devices=device_statuses(project, name, told.texts),
    )
