"""Controller of rollouts: reads what is new, decides, stores the decision, and publishes the routes.

Any number of controllers may run, and each may die at any point. A decision takes effect by one compare-and-set, and
the routes follow from what is stored: the next publication, by any process, is of the last decision.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import msgspec

from mainspring.core.errors import Conflict, MainspringError, Unavailable
from mainspring.core.time import SECOND, Clock
from mainspring.delivery.model import Promotion
from mainspring.delivery.ports import RolloutStore
from mainspring.delivery.rollout.deciding import CONTINUE, CONTROLLER, intervened, looked
from mainspring.delivery.rollout.model import Evidence, Look, Observed, RolloutState, Status
from mainspring.security.model import AuditEvent
from mainspring.security.ports import AuditLog

ACTION = "rollout"
_CHECK_US = 30 * SECOND  # how often a candidate's bundle is read
_IDLE_US = 5 * SECOND  # how often the time of a rollout without news is stored
_SETTLE_US = 60 * SECOND  # how often decisions are looked for that nobody recorded
_RECENT = 50  # rollouts among which, and events among which a decision is looked for

_log = logging.getLogger(__name__)


class Surroundings(Protocol):
    """All that a controller needs of the project, about one rollout at a time."""

    def champion(self, state: RolloutState) -> str:
        """Return the version that the endpoint's alias names, empty if there is none."""
        ...

    def check(self, state: RolloutState) -> None:
        """Raise if the candidate's bundle cannot be loaded."""
        ...

    def observe(self, state: RolloutState) -> Evidence:
        """Return the state's evidence with what was observed since."""
        ...

    def judge(self, state: RolloutState, evidence: Evidence) -> Observed:
        """Return the readings of evidence."""
        ...

    def promote(self, state: RolloutState) -> Promotion:
        """Let the candidate be champion if it passes its gates. Idempotent."""
        ...

    def publish(self) -> None:
        """Publish the routes."""
        ...


class Controller:
    """Carries out the live rollouts of a project, one look each at a time.

    Args:
        clock: The machine's clock. `domain` dates predictions.
        at: Called with the name of each point between two effects; tests end the process there.
    """

    def __init__(
        self,
        store: RolloutStore,
        around: Surroundings,
        audit: AuditLog,
        clock: Clock,
        domain: Clock | None = None,
        *,
        at: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._around = around
        self._audit = audit
        self._clock = clock
        self._domain = domain or clock
        self._at = at
        self._checked: dict[str, int] = {}
        self._settled_at: int | None = None

    def tick(self) -> list[RolloutState]:
        """Look at every live rollout once; return those that changed.

        A rollout that cannot be looked at now, because a store does not answer, is left as it is.
        """
        changed = []
        self._settle()
        for state in self._store.live():
            try:
                made = self.look(record(self._store, self._audit, state))
            except Conflict as error:  # another controller, or a person, was faster
                _log.info("%s", error)
            except MainspringError as error:
                _log.warning("The rollout of %s: %s", state.endpoint, error)
            else:
                changed += [made] if made is not None else []
        return changed

    def _settle(self) -> None:
        """Record the decisions of processes that died before they did, once in a while."""
        now = self._clock.now()
        if self._settled_at is not None and 0 <= now - self._settled_at < _SETTLE_US:
            return
        for state in self._store.find(limit=_RECENT):
            with suppress(Conflict):
                record(self._store, self._audit, state)
        self._settled_at = now

    def look(self, state: RolloutState) -> RolloutState | None:
        """Look at a rollout, decide, and carry out the decision; return its state if it changed.

        Raises:
            Conflict: It changed meanwhile. Nothing was done.
        """
        self._at("begin")
        evidence = self._around.observe(state)
        seen = msgspec.structs.replace(
            self._around.judge(state, evidence), champion=self._around.champion(state), lost=self._lost(state)
        )
        made, look = looked(state, seen, self._clock.now(), evidence=evidence, domain_now=self._domain.now())
        self._at("decided")
        if look is None and evidence == state.evidence and _just(state, self._clock.now()):
            return None
        stored = self._store.replace(made, [] if look is None else [look])
        self._at("stored")
        if look is not None and look.decision != CONTINUE:
            stored = self._told(stored)
        if stored.status is Status.PROMOTING:
            stored = self._promote(stored)
        return stored

    def _told(self, state: RolloutState) -> RolloutState:
        """Publish the routes after a decision, and record it in the audit log."""
        self._around.publish()
        self._at("published")
        recorded = record(self._store, self._audit, state)
        self._at("recorded")
        return recorded

    def _promote(self, state: RolloutState) -> RolloutState:
        self._at("promoting")
        promotion = self._around.promote(state)
        self._at("promoted")
        if promotion.promoted:
            action, why = "done", f"version {state.candidate} is champion, instead of version {promotion.previous}"
        else:
            failed = "; ".join(str(result) for result in promotion.results if not result.allows)
            action, why = "fail", f"version {state.candidate} was not promoted: {failed}"
        made, look = intervened(state, action, CONTROLLER, why, self._clock.now())
        stored = self._store.replace(made, [look])
        self._at("done")
        return self._told(stored)

    def _lost(self, state: RolloutState) -> str:
        """Return why the candidate cannot be served, empty if it can; its bundle is read from time to time."""
        now, before = self._clock.now(), self._checked.get(state.id)
        if before is not None and 0 <= now - before < _CHECK_US:
            return ""
        try:
            self._around.check(state)
        except Unavailable:
            return ""
        except MainspringError as error:
            return error.what
        self._checked[state.id] = now
        return ""


def record(store: RolloutStore, audit: AuditLog, state: RolloutState) -> RolloutState:
    """Append the decisions of a rollout that are not in the audit log yet; return its state. Each is there once.

    Raises:
        Conflict: The rollout changed meanwhile; the next look records the decisions.
    """
    if state.audited == state.looks:
        return state
    looks = store.looks(state.id, after=state.audited)
    audit.append([_event(state, look) for look in looks if look.decision != CONTINUE], unless_among=_RECENT)
    return store.replace(msgspec.structs.replace(state, audited=state.looks))


def _just(state: RolloutState, now: int) -> bool:
    return state.looked_at is not None and 0 <= now - state.looked_at < _IDLE_US


def _event(state: RolloutState, look: Look) -> AuditEvent:
    numbers = f"{look.candidate} requests of version {state.candidate}, {look.control} of version {state.champion}"
    detail = f"{state.id}: {look.decision}: {look.why} ({numbers})"
    action = f"{ACTION}.{look.decision.replace(' ', '-')}"
    return AuditEvent(look.at, look.actor, action, f"endpoint/{state.endpoint}", detail)
