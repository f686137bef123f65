"""Declaration of how an endpoint, a chain of answers or a collection is watched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field

from mainspring.core.definition_registry import declare, expect, expect_each
from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.core.time import DAY, HOUR, parse_duration
from mainspring.monitoring.incidents.actions import Action
from mainspring.monitoring.notify.declaring import Target
from mainspring.monitoring.quality.declared import TOLERABLE, Forecast, Ranking
from mainspring.monitoring.quality.sql_metrics import SqlMetric
from mainspring.monitoring.service.objectives import Objective

ALARMS_PER_WEEK = 1.0
LEAST_ALARMS_PER_WEEK = 0.25


@dataclass(frozen=True, eq=False)
class Monitor:
    """How an endpoint, a chain of answers or a collection is watched.

    Endpoints and chains are watched without a declaration too, by the defaults. Searches in a collection over HTTP are
    logged, without their texts, once it has a monitor.

    Args:
        endpoint: Name of the endpoint, or of the chain.
        collection: Name of the collection, in place of an endpoint.
        segments: Features by their full names, such as "Schedule.carrier": the traffic is also watched by their values.
        alarms_per_week: How many false alarms a week the channels surprise and joint may raise, 0.25 or more.
        objectives: Promises about the endpoint, such as `ms.objectives.availability(0.999)`.
        ranking: For predictions that are ranked in groups, so that their quality is that of rankings.
        forecast: For forecasts, so that their quality is measured by horizon.
        fairness: Features by their full names, or fields of the request, whose values are the groups of
            `mainspring fairness`: alone, and in their combinations.
        notify: Receivers of messages about incidents, such as `ms.notify.webhook("ops")`.
        metrics: Business metrics, `ms.sql_metric("refunds", "SELECT ...")`, one number for each window and version.
        tolerances: How much worse than on held-out rows live quality may be, such as {"brier": 0.02}: `brier`,
            `log_loss`, `accuracy`, `mae`, or `calibration`, of the mean score against the mean label.
        actions: Actions that incidents cause, such as `ms.actions.start("retrain")`.
        skew: The largest share of a feature's served values, such as 0.01, that may differ from the offline read of the
            same instants; beyond it is an incident. Without it skew is only shown.
        extraction: Time, such as "1d", within which a caller whose rows are unlike all other callers', as those of
            somebody who copies the model without natural rows are, is an incident. By default nobody is compared.
        recall: Of a collection: how much lower its recall on its evaluation set may be than four weeks before, such as
            0.02; by default any loss that is shown is an incident.
        freshness: Of a collection: time that it may be behind its source; "1d" by default.
        least_similarity: Of a collection: a search whose nearest chunk is less similar counts as unanswered; by default
            only one that finds nothing.
        clean_windows: After how many windows without a signal an incident is closed.
        cool_down: A closed incident whose cause shows again within this time is reopened.

    Raises:
        Invalid: An argument has another type, the budget of alarms is under a quarter, or two objectives are alike.
    """

    endpoint: str = ""
    _: KW_ONLY
    collection: str = ""
    segments: Sequence[str] = ()
    alarms_per_week: float = ALARMS_PER_WEEK
    objectives: Sequence[Objective] = ()
    ranking: Ranking | None = None
    forecast: Forecast | None = None
    fairness: Sequence[str] = ()
    notify: Sequence[Target] = ()
    metrics: Sequence[SqlMetric] = ()
    tolerances: Mapping[str, float] = field(default_factory=dict)
    actions: Sequence[Action] = ()
    skew: float | None = None
    extraction: str | None = None
    recall: float = 0.0
    freshness: str = ""
    least_similarity: float | None = None
    clean_windows: int = 2
    cool_down: str = "1d"

    def __post_init__(self) -> None:
        expect(self.endpoint, str, "The endpoint of a monitor", fix='write its name: ms.Monitor("late-delivery").')
        expect(self.collection, str, "The collection of a monitor", fix='write its name: collection="docs".')
        if bool(self.endpoint) == bool(self.collection):
            raise Invalid(
                "A monitor names an endpoint and a collection." if self.endpoint else "A monitor names nothing.",
                fix='write ms.Monitor("late-delivery") or ms.Monitor(collection="docs").',
            )
        check_id(self.name, "collection" if self.collection else "endpoint")
        owner = f"The {{}} of the monitor of {self.name!r}"
        expect_each(self.segments, str, owner.format("segments"), fix='write names: segments=["Schedule.carrier"].')
        expect(self.alarms_per_week, (int, float), owner.format("alarms_per_week"), fix="write a number.")
        if not LEAST_ALARMS_PER_WEEK <= self.alarms_per_week < float("inf"):
            raise Invalid(
                f"The monitor of {self.name!r} has alarms_per_week={self.alarms_per_week}; days are judged against "
                "at most 400 days before them, which cannot tell alarms that are rarer than one a month.",
                fix=f"write {LEAST_ALARMS_PER_WEEK} or more: 1 is one false alarm a week, 0.25 one in four weeks.",
            )
        expect_each(self.fairness, str, owner.format("fairness"), fix='write names: fairness=["Customer.age_band"].')
        nothing = type(None)
        expect(self.ranking, (Ranking, nothing), owner.format("ranking"), fix='write ranking=ms.Ranking("query").')
        expect(self.forecast, (Forecast, nothing), owner.format("forecast"), fix='write forecast=ms.Forecast("days").')
        fix = 'write metrics=[ms.sql_metric("refunds", "SELECT ...")].'
        expect_each(self.metrics, SqlMetric, owner.format("metrics"), fix=fix)
        expect(self.tolerances, Mapping, owner.format("tolerances"), fix='write tolerances={"brier": 0.02}.')
        for metric, tolerance in self.tolerances.items():
            expect(tolerance, (int, float), owner.format("tolerance"), fix='write tolerances={"brier": 0.02}.')
            if metric not in TOLERABLE or not 0.0 < tolerance < float("inf"):
                raise Invalid(
                    f"The monitor of {self.name!r} has the tolerance {metric!r}: {tolerance!r}.",
                    fix=f"write a number above 0 for one of {', '.join(TOLERABLE)}.",
                )
        fix = "write objectives=[ms.objectives.availability(0.999)]."
        expect_each(self.objectives, Objective, owner.format("objectives"), fix=fix)
        names = [objective.name for objective in self.objectives]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise Invalid(f"The monitor of {self.name!r} has two objectives {twice[0]!r}.", fix="remove one of them.")
        expect_each(self.notify, Target, owner.format("notify"), fix='write notify=[ms.notify.webhook("ops")].')
        names = [target.name for target in self.notify]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise Invalid(f"The monitor of {self.name!r} has two receivers {twice[0]!r}.", fix="remove one of them.")
        expect_each(self.actions, Action, owner.format("actions"), fix='write actions=[ms.actions.start("retrain")].')
        expect(self.skew, (int, float, nothing), owner.format("skew"), fix="write a share, such as skew=0.01.")
        if self.skew is not None and not 0.0 < self.skew < 1.0:
            raise Invalid(
                f"The monitor of {self.name!r} has skew={self.skew}.", fix="write a share above 0 and below 1."
            )
        expect(self.extraction, (str, nothing), owner.format("extraction"), fix='write a duration: extraction="1d".')
        if self.extraction is not None and not HOUR <= parse_duration(self.extraction) <= 31 * DAY:
            raise Invalid(f"The monitor of {self.name!r} has extraction={self.extraction!r}.", fix="write 1h to 31d.")
        self._check_collection(owner)
        expect(self.clean_windows, int, owner.format("clean_windows"), fix="write a whole number, such as 2.")
        expect(self.cool_down, str, owner.format("cool_down"), fix='write a duration, such as "1d".')
        if self.clean_windows < 1 or self.cool_down_us < 0:
            raise Invalid(
                f"The monitor of {self.name!r} has clean_windows={self.clean_windows}.", fix="write at least 1."
            )
        declare(self)

    def _check_collection(self, owner: str) -> None:
        expect(self.recall, (int, float), owner.format("recall"), fix="write a loss, such as recall=0.02.")
        expect(self.freshness, str, owner.format("freshness"), fix='write a duration: freshness="1d".')
        nearest = self.least_similarity
        expect(nearest, (int, float, type(None)), owner.format("least_similarity"), fix="write a number, such as 0.3.")
        if not 0.0 <= self.recall < 1.0:
            raise Invalid(
                f"The monitor of {self.name!r} has recall={self.recall}.", fix="write a loss, at least 0 and below 1."
            )
        if self.freshness and not 0 < parse_duration(self.freshness) <= 366 * DAY:
            raise Invalid(f"The monitor of {self.name!r} has freshness={self.freshness!r}.", fix="write up to 366d.")
        if nearest is not None and not -float("inf") < nearest < float("inf"):
            raise Invalid(f"The monitor of {self.name!r} has least_similarity={nearest}.", fix="write a number.")

    @property
    def for_collections(self) -> list[str]:
        """Names of the arguments that are given and that only a collection has."""
        names = ["recall", "freshness"]
        least = ["least_similarity"] if self.least_similarity is not None else []
        return [name for name in names if getattr(self, name)] + least

    @property
    def freshness_us(self) -> int:
        """Time that a collection may be behind its source."""
        return parse_duration(self.freshness or "1d")

    @property
    def for_endpoints(self) -> list[str]:
        """Names of the arguments that are given and that only an endpoint has."""
        names = [
            "segments",
            "objectives",
            "ranking",
            "forecast",
            "fairness",
            "metrics",
            "tolerances",
            "skew",
            "extraction",
        ]
        return [name for name in names if getattr(self, name)]

    @property
    def cool_down_us(self) -> int:
        return parse_duration(self.cool_down)

    @property
    def name(self) -> str:
        return self.endpoint or self.collection
