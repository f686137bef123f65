"""Decisions on executors and on models in memory, with what is there now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from mainspring.core.errors import NotFound
from mainspring.core.time import format_instant
from mainspring.operations.device_checks import DeviceStatus, device_statuses
from mainspring.operations.endpoint_health import endpoints
from mainspring.project import Project, model_memory
from mainspring.serving.load.use import CacheUse, Use, Uses, read_uses
from mainspring.serving.plane.slots import folder, numbers
from mainspring.serving.residency.memory import Decision, What

MOST = 1_000  # decisions of a report


class ScalingDecision(msgspec.Struct, frozen=True, kw_only=True):
    """A decision on a model; the fields are those of the log of decisions (`Decision`).

    Attributes:
        at: ISO 8601, UTC.
        memory_before, memory_after: Bytes of all models of the process.
        memory_limit: Bytes that they may take; `None` without a bound.
        model_bytes: Bytes of this model.
        executors_before, executors_after: Of this model.
        queue_delay_ms, lost, busy: The load that it follows from; `None` of others.
    """

    at: str
    what: str
    endpoints: list[str]
    digest: str
    why: str
    process: str
    executors_before: int
    executors_after: int
    model_bytes: int
    memory_before: int
    memory_after: int
    memory_limit: int | None
    queue_delay_ms: float | None
    lost: int | None
    busy: float | None


class ScalingNow(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint over all processes of this machine's gateway."""

    endpoint: str
    least: int
    most: int
    resident: bool
    executors: int
    model_bytes: int
    cache: CacheUse | None
    devices: list[DeviceStatus] = []  # that its versions run on, but for what was to run on the processor and does


class Scaling(msgspec.Struct, frozen=True, kw_only=True):
    """Endpoints now, and decisions, newest first.

    Attributes:
        processes: How many answered.
        memory, memory_limit: Bytes of all models together; no limit is `None`.
    """

    processes: int
    memory: int
    memory_limit: int | None
    endpoints: list[ScalingNow]
    decisions: list[ScalingDecision]


@dataclass(frozen=True, slots=True)
class Live:
    """Numbers of the processes of this machine's gateway: as each says them, by its slot, and added up."""

    texts: Mapping[int, bytes]
    uses: Uses

    @property
    def processes(self) -> int:
        """How many answered."""
        return len(self.texts)


def live(project: Project) -> Live:
    """Ask the processes of this machine's gateway for their numbers."""
    texts = numbers(folder(project.settings.state))
    return Live(texts, read_uses(texts))


def scaling(project: Project, since: int, endpoint: str | None = None) -> Scaling:
    """Return what was decided on this machine from an instant on, the newest `MOST`, and what is there now.

    Raises:
        NotFound: There is no such endpoint.
    """
    declared = project.definitions.endpoints
    if endpoint is not None and endpoint not in (known := endpoints(project)):
        raise NotFound(f"There is no endpoint {endpoint!r}.", fix=f"use one of: {', '.join(known) or 'none yet'}.")
    told = live(project)
    found = decisions(project, since, endpoint)
    return Scaling(
        processes=told.processes,
        memory=told.uses.used,
        memory_limit=told.uses.limit or None,
        endpoints=[now(project, name, told) for name in declared if endpoint in (None, name)],
        decisions=[shown(each) for each in reversed(found[-MOST:])],
    )


def now(project: Project, name: str, told: Live) -> ScalingNow:
    """Return a declared endpoint with what it has."""
    declared, use = project.definitions.endpoint(name), told.uses.endpoints.get(name, Use())
    return ScalingNow(
        endpoint=name,
        least=declared.executors[0],
        most=declared.executors[1],
        resident=declared.resident,
        executors=use.executors,
        model_bytes=use.nbytes,
        cache=use.cache,
        devices=device_statuses(project, name, told.texts),
    )


def decisions(project: Project, since: int, endpoint: str | None = None) -> list[Decision]:
    """Return the decisions on this machine from an instant on, of one endpoint's models or all, oldest first."""
    found = model_memory.decisions(project.settings).since(since)
    if endpoint is None:
        return list(found)
    own = {each.digest for each in found if endpoint in each.endpoints}
    return [each for each in found if each.digest in own or each.what == What.ENDED]


def shown(each: Decision) -> ScalingDecision:
    """Return a decision as it is shown."""
    return ScalingDecision(
        at=format_instant(each.at),
        what=each.what,
        endpoints=list(each.endpoints),
        digest=each.digest,
        why=each.why,
        process=each.process,
        executors_before=each.before,
        executors_after=each.executors,
        model_bytes=each.nbytes,
        memory_before=each.used_before,
        memory_after=each.used,
        memory_limit=each.budget or None,
        queue_delay_ms=each.delay_ms,
        lost=each.lost,
        busy=each.busy,
    )


@dataclass(frozen=True, slots=True)
class State:
    """Models of an endpoint at an instant, over all processes; `used` and `budget` are of all models."""

    executors: int
    nbytes: int
    used: int
    budget: int


@dataclass(slots=True)
class _Process:
    run: str = ""
    used: int = 0
    budget: int = 0
    models: dict[str, tuple[int, int]] = field(default_factory=dict)  # digest -> executors, bytes


def history(found: Sequence[Decision], endpoint: str, instants: Iterable[int]) -> list[State | None]:
    """Return the state at each of these instants, which ascend; `None` before the first decision.

    A process that was killed has its models until the next of its name decides.

    Args:
        found: Decisions on all models, oldest first.
    """
    own = {each.digest for each in found if endpoint in each.endpoints}
    processes: dict[str, _Process] = {}
    states: list[State | None] = []
    rest = iter(found)
    each = next(rest, None)
    for instant in instants:
        while each is not None and each.at <= instant:
            _apply(processes, each)
            each = next(rest, None)
        models = [has for process in processes.values() for digest, has in process.models.items() if digest in own]
        states.append(
            State(
                sum(executors for executors, _ in models),
                sum(nbytes for _, nbytes in models),
                sum(process.used for process in processes.values()),
                sum(process.budget for process in processes.values()),
            )
            if processes
            else None
        )
    return states


def _apply(processes: dict[str, _Process], each: Decision) -> None:
    known = processes.get(each.process)
    if known is None or known.run != each.run:
        known = processes[each.process] = _Process(each.run)
    if each.what == What.ENDED:
        processes[each.process] = _Process(each.run)
        return
    known.used, known.budget = each.used, each.budget
    if each.executors:
        known.models[each.digest] = (each.executors, each.nbytes)
    elif each.what != What.REFUSED:
        known.models.pop(each.digest, None)
