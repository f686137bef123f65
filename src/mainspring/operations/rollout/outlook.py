"""Plans tried in advance on the traffic that the endpoint's log has."""

from __future__ import annotations

from mainspring.delivery.rollout.foreseeing import Foreseen, foreseen, labelled_of, traffic_of
from mainspring.delivery.rollout.plan import Plan
from mainspring.delivery.rollout.plan_in_words import missing_guard
from mainspring.operations.rollout.carrying_out import score_of
from mainspring.operations.rollout.interventions import plan_of
from mainspring.project import Project

RECENT = 5_000  # predictions that say how much traffic there is, and how fast answers are


class PlanReport(Plan, frozen=True, kw_only=True):
    """A plan, and what it is expected to find.

    Attributes:
        requests_an_hour: Traffic of the endpoint by its recent predictions; 0 if the log has none.
        foreseen: Simulated rollouts, for each guard and goal that the log has a history of; empty without traffic or a
            choice of arm.
        advice: The guard that the plan lacks, in words; empty if it lacks none.
    """

    requests_an_hour: float = 0.0
    foreseen: tuple[Foreseen, ...] = ()
    advice: str = ""


def planned(project: Project, endpoint: str) -> PlanReport:
    """Return the plan of an endpoint, and what simulated rollouts on its traffic find.

    Raises:
        NotFound, Invalid: As `plan_of`.
    """
    plan = plan_of(project, endpoint)
    found = project.predictions.recent(endpoint, RECENT)
    recent = [each for each in found if not each.row]  # one of each request
    labels, now = project.label_rows(endpoint), project.clock.now()
    version = recent[0].version if recent else ""
    traffic = traffic_of(
        [each.at for each in recent],
        [each.latency_us / 1_000 for each in recent],
        [each.share for each in recent],
        scores=[score_of(each) for each in recent],
        labelled=[] if labels is None else labelled_of(plan, project.predictions, labels, version, now),
        cut=len(found) == RECENT,
    )
    hourly = traffic.requests_an_hour
    fields = {name: getattr(plan, name) for name in plan.__struct_fields__}
    simulated = foreseen(plan, traffic, project.wall.now())
    model = project.definitions.models.get(project.definitions.served(endpoint).model_name)
    advice = "" if model is None else missing_guard(plan, model.task, labels is not None)
    return PlanReport(**fields, requests_an_hour=sum(hourly) / len(hourly), foreseen=simulated, advice=advice)
