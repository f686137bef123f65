"""State of a rollout, its evidence, and looks: one evaluation of the evidence each, with its numbers."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from mainspring.delivery.rollout.plan import Plan


class Status(StrEnum):
    """Status of a rollout. The first four are live."""

    PENDING = "pending"  # no look yet: the champion has every request
    RUNNING = "running"
    WAITING = "waiting"  # succeeded; a person promotes or ends it
    PROMOTING = "promoting"  # succeeded; the champion is being moved
    DONE = "done"  # the candidate is champion
    ROLLED_BACK = "rolled back"
    STOPPED = "stopped"
    FAILED = "failed"  # could not be carried out
    INCONCLUSIVE = "inconclusive"  # ended by its plan without a decision


LIVE = frozenset({Status.PENDING, Status.RUNNING, Status.WAITING, Status.PROMOTING})


class Counts(msgspec.Struct, frozen=True, array_like=True):
    """Events of one kind in each arm while the candidate's share was `share`."""

    share: float
    candidate: int = 0
    control: int = 0


class Sums(msgspec.Struct, frozen=True, array_like=True):
    """Additive statistics of a value in each arm, at one share of the candidate, in one hour of the predictions."""

    share: float
    hour: int
    candidate: tuple[int, float, float] = (0, 0.0, 0.0)  # number, sum, sum of squares
    control: tuple[int, float, float] = (0, 0.0, 0.0)


class Cells(msgspec.Struct, frozen=True, array_like=True):
    """Numbers of values in each arm by node, as of `stats.sequential.means.Bounds`, at one share of the candidate."""

    share: float
    candidate: tuple[float, ...] = ()
    control: tuple[float, ...] = ()


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All that was observed in a rollout: additive, so that it does not matter who added which part.

    Attributes:
        position: Position in the prediction log behind what was counted.
        labelled: Horizon -> instant; predictions made before it have been counted with their labels.
        labelled_until: The same for horizons that `labelled` lacks, as in states that are older than it.
        requests: Requests with a choice of arm.
        events: Kind of event -> counts.
        values: Values that need labels -> their numbers.
        sums: Sums of paired differences, of a shadow.
        cuts: Guard -> thresholds, fixed before what is counted by them was observed; of values, their bounds and nodes.
        seen: Where units stay in their arm: kind -> units that were counted, as of
            `stats.sequential.counting.first_of_units`.
    """

    position: str = ""
    labelled_until: int | None = None
    labelled: dict[str, int] = {}
    requests: tuple[Counts, ...] = ()
    events: dict[str, tuple[Counts, ...]] = {}
    values: dict[str, tuple[Cells, ...]] = {}
    sums: dict[str, tuple[Sums, ...]] = {}
    cuts: dict[str, tuple[float, ...]] = {}
    seen: dict[str, bytes] = {}

    @property
    def candidate(self) -> int:
        """Requests that the candidate was assigned."""
        return sum(each.candidate for each in self.requests)

    @property
    def control(self) -> int:
        """Requests that the champion was assigned while there was a choice."""
        return sum(each.control for each in self.requests if each.share)

    @property
    def unchosen(self) -> int:
        """Requests of the champion that had no choice of arm, as of gateways that do not serve the candidate."""
        return sum(each.control for each in self.requests if not each.share)


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One guard or goal at one look.

    Attributes:
        breach: Whether the candidate is worse than tolerated, at the guard's share of alpha.
        safe: Whether it is no worse than tolerated; of a goal, whether it is better.
        futile: Of a goal: whether an improvement of the declared effect is excluded.
        log_e: Natural logarithm of the e-value against "no worse than tolerated".
        estimate, low, high: The relative risk or difference of means, and its confidence sequence.
        limit: The largest tolerated value of it.
        candidate, control: Events or values in each arm.
    """

    guard: str
    unit: str = "ratio"  # or "difference"
    breach: bool = False
    safe: bool = False
    futile: bool = False
    log_e: float = 0.0
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float = 1.0
    candidate: int = 0
    control: int = 0
    note: str = ""


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """Observations behind a decision, besides the plan and the state.

    Attributes:
        candidate, control: Requests of each arm in the whole rollout.
        readings: Of the guards.
        goals: Readings of the goals.
        sample_ratio: Reading of the share itself.
        unchosen: Requests without a choice of arm since the rollout began.
        lost: Reason why the candidate cannot be served, empty if it can.
        unable: Before the beginning: gateway processes that cannot load the candidate, with the reasons.
        waiting: Before the beginning: gateway processes that have yet to load it.
        reference: Of a blue-green rollout: the champion's requests before it began, with which errors are compared.
        champion: The version that the endpoint's alias names now.
        share: Of a bandit: the share that its goal suggests.
    """

    candidate: int = 0
    control: int = 0
    readings: tuple[Reading, ...] = ()
    goals: tuple[Reading, ...] = ()
    sample_ratio: Reading | None = None
    unchosen: int = 0
    lost: str = ""
    unable: str = ""
    waiting: str = ""
    reference: int | None = None
    champion: str = ""
    share: float | None = None


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """One evaluation or intervention, with all its numbers; looks explain every state of a rollout.

    Attributes:
        number: From 1, in order.
        at: Machine's clock, UTC epoch microseconds; it may go back where the clock did.
        decision: What was decided: begin, continue, step, wait, promote, done, roll back, stop, fail, end.
        actor: The person who intervened, or the controller.
        status, step, share: As they are after it.
    """

    rollout: str
    number: int
    at: int
    decision: str
    why: str
    actor: str
    status: Status
    step: int
    share: float
    candidate: int = 0
    control: int = 0
    readings: tuple[Reading, ...] = ()
    goals: tuple[Reading, ...] = ()
    sample_ratio: Reading | None = None


class RolloutState(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout as it is stored. `revision` grows by one with each change.

    Attributes:
        champion, candidate: Versions of the model, with their bundles' digests.
        salt: Decides with a unit which arm the unit has.
        share: The candidate's share now.
        step_from: The candidate's requests before this step.
        held_us: Time in this step, `watched_us` in all steps, counted while a controller looked.
        looked_at: The machine's clock at the last look.
        looks: Number of looks that are stored; `audited` of them are in the audit log.
        began_at: Instant of the first look, by the clock that dates predictions.
    """

    id: str
    endpoint: str
    model: str
    plan: Plan
    champion: str
    champion_digest: str
    candidate: str
    candidate_digest: str
    salt: str
    actor: str
    reason: str = ""
    created_at: int = 0
    began_at: int | None = None
    ended_at: int | None = None
    status: Status = Status.PENDING
    step: int = 0
    share: float = 0.0
    step_from: int = 0
    held_us: int = 0
    watched_us: int = 0
    looked_at: int | None = None
    looks: int = 0
    audited: int = 0
    shown_us: int = 0  # `watched_us` at the last stored look
    why: str = ""
    revision: int = 0
    evidence: Evidence = Evidence()

    @property
    def live(self) -> bool:
        return self.status in LIVE
