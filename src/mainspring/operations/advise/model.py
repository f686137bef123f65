"""Facts about a project's practice and use, and the advice that follows from them."""

from __future__ import annotations

from typing import Literal

import msgspec

State = Literal["in place", "next", "not needed yet"]


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One model, declared or registered.

    Attributes:
        gates: Kinds of its gates: "beats", "at_most", "at_least", "approved", "card", ...
        trained_at: Starts of its last training runs, oldest first, UTC epoch microseconds.
        metric: First metric of a `beats` gate, else the task's first; empty if it is unknown.
        value, baseline: That metric on the newest version's held-out rows, of the model and of its baseline.
        better: Whether `value` is better than `baseline`; `None` if either is unknown.
        promotions: Moves of its champion to another version at once: neither a rollback nor the end of a rollout.
        promoters: Distinct actors of these.
        champion_since: Time of the last promotion, UTC epoch microseconds.
    """

    name: str
    declared: bool = True
    gates: tuple[str, ...] = ()
    trained_at: tuple[int, ...] = ()
    versions: int = 0
    newest: str = ""
    metric: str = ""
    value: float | None = None
    baseline: float | None = None
    better: bool | None = None
    promotions: int = 0
    promoters: tuple[str, ...] = ()
    champion: str = ""
    champion_since: int | None = None


class EndpointFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint and its traffic over the days that were looked at.

    Attributes:
        serves: Whether it has a route.
        predictions: Predictions of its windows; before the first window, of the newest thousand.
        a_day: Predictions a day, from the first one until now.
        peak: Predictions a second in its busiest window.
        labels: Predictions whose label is known.
        drifted: Columns that drifted in the newest judged window.
        alerts: Those that drifted in the judged window before it, too.
        idle_days: Days since the last window with predictions; `None` without any prediction.
        capacity: Highest measured load, in predictions a second, that met the deadline; `None` if not measured.
    """

    name: str
    model: str
    serves: bool = False
    predictions: int = 0
    a_day: float = 0.0
    peak: float = 0.0
    labels: int = 0
    drifted: tuple[str, ...] = ()
    alerts: tuple[str, ...] = ()
    idle_days: float | None = None
    capacity: float | None = None
    rollout: bool = False  # whether the project declares how a candidate reaches it


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Contents and use of a project at one instant.

    Attributes:
        sources: Source -> rows in its table; `None` where no data has landed.
        tests: Number of test files of the project.
        kept: Whether the folder is under version control.
        scheduled: Jobs that schedules queue, and the jobs of pipelines that a schedule or an event starts.
        log_bytes: Size of the stored prediction log; `None` if it is not on this machine.
        expires: Whether the profile removes old predictions.
    """

    project: str
    now: int
    sources: dict[str, int | None] = {}
    models: tuple[ModelFacts, ...] = ()
    endpoints: tuple[EndpointFacts, ...] = ()
    tests: int = 0
    kept: bool = False
    scheduled: tuple[str, ...] = ()
    gateway_workers: int = 1
    log_bytes: int | None = None
    expires: bool = False


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """One area of practice: whether it is in place, justified next, or not needed yet, with the evidence.

    Attributes:
        evidence: What was found, with its numbers.
        step: What to do; empty unless `state` is "next".
        why: What the step brings, or what would justify it.
        command: A command, or a line of code, to begin with.
    """

    area: str
    state: State
    evidence: str
    step: str = ""
    why: str = ""
    command: str = ""


class Advised(msgspec.Struct, frozen=True, kw_only=True):
    """Advice on every area in the order of a project's life. `next` is the first that the use justifies."""

    project: str
    next: Advice | None
    areas: tuple[Advice, ...]
