"""Shadows: logged predictions of the champion are answered again by the candidate, and the pairs become evidence."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import msgspec

from mainspring.core.errors import Conflict, Corrupt, NotFound
from mainspring.delivery.rollout.deciding import CONTROLLER, intervened
from mainspring.delivery.rollout.model import Evidence, RolloutState
from mainspring.delivery.rollout.pairing import paired
from mainspring.operations.rollout.carrying_out import shadowed
from mainspring.project import Project
from mainspring.project.executors import executors
from mainspring.serving.plane import runtime
from mainspring.serving.plane.shadow import SHADOWED, Pairs, ShadowScorer

MOST = 2_000  # predictions that are scored in a turn; of more, the rest is dropped and counted
TURN_S = 5.0  # after which the rest is dropped, too: a candidate that is slower than its traffic does not fall behind
_AT_ONCE = 256  # predictions between two signs of life
_TRIES = 5

_log = logging.getLogger(__name__)


class Shadows:
    """Scores what is new for each shadow of a project.

    Args:
        only: Id of the rollout that is scored; by default every shadow is.
        alive: Called with True before some predictions are scored, and with False when they are: a candidate that
            hangs keeps the thread in between.
    """

    def __init__(self, project: Project, only: str = "", *, alive: Callable[[bool], object] = lambda _: None) -> None:
        self._project = project
        self._only = only
        self._alive = alive
        self._scorers: dict[str, ShadowScorer] = {}

    def turn(self) -> int:
        """Score what has come since the last turn; return the number of pairs."""
        states = [state for state in shadowed(self._project) if self._only in ("", state.id)]
        self._scorers = {
            state.candidate_digest: self._scorers[state.candidate_digest]
            for state in states
            if state.candidate_digest in self._scorers
        }
        return sum(map(self._of, states))

    def _of(self, state: RolloutState) -> int:
        try:
            scorer = self._scorer(state.candidate_digest)
        except (Corrupt, NotFound) as error:
            now = self._project.wall.now()
            failed, look = intervened(state, "fail", CONTROLLER, f"no shadow: {error.what}", now)
            self._project.rollouts.replace(failed, [look])
            return 0
        log, evidence = self._project.predictions, state.evidence
        after = int(evidence.position) if evidence.position else None
        columns = (*SHADOWED, "version")
        found = log.arrivals(state.endpoint, state.began_at or 0, after=after, columns=columns)
        if found is None:  # the log went back, as from a backup: on from where it is
            found = log.arrivals(state.endpoint, self._project.clock.now(), columns=columns)
        if found is None or str(found.position) == evidence.position:
            return 0
        pairs, dropped, end = Pairs(), 0, time.monotonic() + TURN_S
        for batch in found.batches:
            rows = batch.filter([version == state.champion for version in batch["version"].to_pylist()])
            for start in range(0, rows.num_rows, _AT_ONCE):
                some = rows.slice(start, _AT_ONCE)
                room = max(0, MOST - len(pairs.ids)) if time.monotonic() < end else 0
                dropped += max(0, some.num_rows - room)
                self._alive(True)
                scored = scorer.score(some.slice(0, room).select(list(SHADOWED)).to_pydict())
                self._alive(False)
                for name in ("ids", "champion", "candidate", "errors"):
                    getattr(pairs, name).extend(getattr(scored, name))
                pairs.skipped.update(scored.skipped)
        made = paired(
            evidence,
            pairs.champion,
            pairs.candidate,
            sum(error is not None for error in pairs.errors),
            dropped=dropped,
            skipped=pairs.skipped.total(),
        )
        self._keep(state, msgspec.structs.replace(made, position=str(found.position)))
        return len(pairs.ids)

    def _scorer(self, digest: str) -> ShadowScorer:
        if digest not in self._scorers:
            project = self._project
            loaded = runtime.load(project.bundles.load(digest), project.online, executors(project))
            self._scorers[digest] = ShadowScorer(loaded, project.clock)
        return self._scorers[digest]

    def _keep(self, state: RolloutState, evidence: Evidence) -> None:
        """Store evidence, unless another process counted the same predictions meanwhile."""
        for _ in range(_TRIES):
            [now] = self._project.rollouts.get([state.id])
            if now is None or not now.live or now.evidence.position != state.evidence.position:
                return
            try:
                self._project.rollouts.replace(msgspec.structs.replace(now, evidence=evidence))
            except Conflict:  # the controller's look was faster
                continue
            return
        _log.warning("The pairs of the shadow of %s are scored again: its rollout kept changing.", state.endpoint)
