"""Rollouts of an opened project, for code and notebooks."""

from __future__ import annotations

from mainspring.core.errors import Conflict, NotFound
from mainspring.delivery.model import Promotion
from mainspring.delivery.rollout.model import RolloutState
from mainspring.operations.rollout import interventions
from mainspring.operations.rollout.reports import RolloutReport, listed, report
from mainspring.project import Project


class Rollouts:
    """Rollouts by endpoint: what `mainspring rollout` does, with reports instead of text."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def start(self, endpoint: str, candidate: str | None = None, *, reason: str = "") -> RolloutReport:
        """Start a rollout of a version, by default the newest.

        Raises:
            Conflict: The version did not pass its gates, or the endpoint has a live rollout.
        """
        return self._report(interventions.start(self._project, endpoint, candidate, reason=reason))

    def status(self, endpoint: str) -> RolloutReport:
        """Return the newest rollout of an endpoint, with the numbers of every guard.

        Raises:
            NotFound: It has had none.
        """
        found = self._project.rollouts.find(endpoints=[endpoint], limit=1)
        if not found:
            raise NotFound(
                f"Endpoint {endpoint!r} has had no rollout.", fix=f"run `mainspring rollout start {endpoint}`."
            )
        return report(self._project, found[0])

    def stop(self, endpoint: str, *, reason: str = "") -> RolloutReport:
        """End the live rollout: the champion has every request again."""
        return self._report(interventions.end(self._project, endpoint, "stop", reason=reason))

    def promote(self, endpoint: str, *, reason: str = "") -> RolloutReport:
        """Let the candidate be champion now.

        Raises:
            Conflict: It did not pass its gates.
        """
        return self._report(interventions.promote(self._project, endpoint, reason=reason))

    def rollback(self, endpoint: str, *, reason: str = "", emergency: bool = False) -> RolloutReport:
        """Take the candidate back: end the live rollout, or undo the promotion by the last one.

        Args:
            emergency: Whether an author may return to a version that is not approved; that wants a reason.
        """
        made = interventions.roll_back(self._project, endpoint, reason=reason, emergency=emergency)
        return self._report(made)

    def list(self, endpoint: str | None = None, *, limit: int = 20) -> list[RolloutReport]:
        """Return rollouts without the numbers of their guards, newest first."""
        return listed(self._project, endpoint, limit)

    def _report(self, made: RolloutState | Promotion) -> RolloutReport:
        if isinstance(made, Promotion):
            failed = "; ".join(str(result) for result in made.results if not result.allows)
            raise Conflict(
                f"Version {made.version} of {made.model!r} did not pass its gates: {failed}",
                fix=f"`mainspring promote {made.model} {made.version}` shows each gate.",
            )
        return report(self._project, made)
