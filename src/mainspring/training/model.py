"""Declaration of a model, and the report of its training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from types import NoneType
from typing import Any

from mainspring.core import html
from mainspring.core.definition_registry import declare, expect, expect_each
from mainspring.core.errors import Invalid
from mainspring.core.expr import Column
from mainspring.core.ids import check_id
from mainspring.core.time import parse_duration
from mainspring.data.model import SourceColumn
from mainspring.features.describe.personal import personal_names
from mainspring.features.model import FeatureColumn, FeatureGroup, FeatureView, Observations, RequestFeatures
from mainspring.stats.metrics import DECIDED, Metric, is_of, metrics_of, named, of_label
from mainspring.stats.thresholds import Costs
from mainspring.training.distribution import Distributed
from mainspring.training.gate_kinds import CanaryGate, DataGate, FairnessGate, Gate, RobustGate
from mainspring.training.label import Label, as_labels
from mainspring.training.mutable import check_mutable
from mainspring.training.space import Search

TASKS = ("binary", "multiclass", "regression")
CHECKS = (
    "shadow",
    "own-row",
    "predicts-alone",
    "knows-the-future",
    "label-twice",
    "duplicates",
    "all-null",
    "constant",
)


@dataclass(frozen=True, eq=False)
class Model:
    """Declaration of a model: how it is trained, and its gates. Built by `model`."""

    name: str
    _: KW_ONLY
    train: Callable[..., Any]  # (data: TrainingSet, run: Run) -> a fitted estimator; with a search (data, run, params)
    observations: Observations
    features: Sequence[FeatureGroup]  # the feature groups that are read
    label: Label  # the first, if there are several
    task: str
    columns: tuple[str, ...] = ()  # full names of the features in use; by default all of the groups
    gates: Sequence[Gate] = ()
    baseline: Sequence[FeatureGroup] = ()  # the baseline model's feature groups; empty: a constant predictor
    baseline_columns: tuple[str, ...] = ()  # full names of the baseline's features; by default all
    holdout: float | str = 0.2  # the end of the time range: a share of the rows, or a duration
    embargo: str | int = 0  # duration before each later part in which rows are left out
    seed: int = 0
    accept_findings: Sequence[str] = ()  # ids of leakage findings, such as "shadow:View.feature"
    search: Search | None = None  # hyperparameter search of `train`
    metrics: Sequence[Metric] = ()  # in addition to the task's metrics
    threshold: Costs | None = None  # binary only: the cost-minimising threshold on the validation rows
    mutable: Mapping[str, str] = field(default_factory=dict)  # inputs that could change -> any, increase or decrease
    distributed: Distributed | None = None  # the processes that train it; by default one
    labels: tuple[Label, ...] = ()  # all labels; (label,) for one
    description: str = ""
    owner: str = ""
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.labels) <= 1:  # `label` may have been changed by dataclasses.replace
            object.__setattr__(self, "labels", (self.label,))
        elif self.label is not self.labels[0]:
            raise Invalid(
                f"Model {self.name!r} has the label {self.label.name} and the labels {self.truth}, which do not match.",
                fix="with dataclasses.replace, give label=..., labels=() for one, or labels with label=, its first.",
            )
        for groups, columns in (("features", "columns"), ("baseline", "baseline_columns")):
            if not getattr(self, columns):
                every = tuple(name for group in getattr(self, groups) for name in group.columns)
                object.__setattr__(self, columns, every)
            _check_columns(self.name, groups, getattr(self, groups), columns, getattr(self, columns))

    @property
    def embargo_us(self) -> int:
        return parse_duration(self.embargo)

    @property
    def measured(self) -> tuple[Metric, ...]:
        """The metrics beyond the task's: declared, or named by a gate or the search, such as `recall_at_100`."""
        mentioned = [
            *(gate.metric for gate in self.gates if gate.names_metric),
            *([self.search.metric] if self.search else []),
        ]
        known = [named(name) for name in mentioned if name not in (*metrics_of(self.task), *self._of_labels)]
        every = (*self.metrics, *(metric for metric in known if metric is not None and is_of(self.task, metric)))
        return tuple({metric.name: metric for metric in every}.values())

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of the key columns of the model's entities."""
        return tuple(name for entity in self.observations.keys for name in entity.keys)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of all metrics of the model's versions, on which gates may be declared."""
        decided = tuple(DECIDED) if self.threshold else ()
        measured = (each.name for each in self.measured)
        return tuple(dict.fromkeys([*metrics_of(self.task), *measured, *decided, *self._of_labels]))

    @property
    def slice_columns(self) -> tuple[str, ...]:
        """The columns of the held-out rows that gates slice by: features in full, and columns of the observations.

        Raises:
            Invalid: A gate names a column that there is not, or one that identifies a person.
        """
        found = (self._slice_column(name) for gate in self.gates for name in gate.by_slice)
        return tuple(dict.fromkeys(found))

    @property
    def slice_views(self) -> tuple[FeatureView, ...]:
        """The views of gates' slices, which are read at training for the held-out rows."""
        return tuple({view.name: view for gate in self.gates for view in gate.views}.values())

    def _slice_column(self, name: str) -> str:
        features, source = (*self.columns, *self.baseline_columns), self.observations.source
        if name in (column for view in self.slice_views for column in view.columns):
            if name in personal_names(self.slice_views, self.observations):
                raise Invalid(
                    f"A gate of model {self.name!r} slices by {name}, which comes from a column marked pii.",
                    fix="declare a feature that groups its values, so that no slice is a person, and slice by that.",
                )
            return name
        ends = {each for each in features if each == name or each.rpartition(".")[2] == name}
        if name in features or len(ends) == 1:
            return name if name in features else ends.pop()
        if name not in source.columns or ends:
            raise Invalid(
                f"A gate of model {self.name!r} slices by {name!r}, which names {len(ends) or 'no'} columns of it.",
                fix=f"use a feature of the model or its baseline, in full, or one of {', '.join(source.columns)}.",
            )
        if name in source.pii:
            raise Invalid(
                f"A gate of model {self.name!r} slices by {source.name}.{name}, which is marked pii.",
                fix="declare a feature that groups its values, so that no slice is a person, and slice by that.",
            )
        return name

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The column names of several labels, which become the output names; empty for one label."""
        return tuple(each.column for each in self.labels) if len(self.labels) > 1 else ()

    @property
    def _of_labels(self) -> tuple[str, ...]:
        """The names of the per-label metrics of several labels, such as `rmse.minutes`."""
        names = [*metrics_of(self.task), *(each.name for each in self.metrics)]
        return tuple(of_label(name, column) for name in names for column in self.label_columns)

    @property
    def inputs(self) -> list[str]:
        """The inputs as text: a group's name if all its features are used, else the features' full names."""
        return named_features(self.features, self.columns)

    @property
    def truth(self) -> str:
        """The full names of the labels."""
        return ", ".join(each.name for each in self.labels)

    def __repr__(self) -> str:
        return f"<{self.task} model {self.name!r} of {self.truth} from {', '.join(self.inputs)}>"

    def _repr_html_(self) -> str:
        facts = {
            "label" if len(self.labels) == 1 else "labels": "; ".join(
                ", ".join(filter(None, (each.name, each.rule))) for each in self.labels
            ),
            "observations": self.observations.source.name,
            "features": ", ".join(self.inputs),
            "baseline": ", ".join(named_features(self.baseline, self.baseline_columns)) or "a constant",
            "gates": ", ".join(map(str, self.gates)) or "none",
            "held out": self.holdout,
            "owner": self.owner,
        }
        about = [html.paragraph(self.description)] if self.description else []
        return html.joined(html.title(self.name, f"{self.task} model"), *about, html.table(("", ""), facts.items()))


def model(
    name: str,
    *,
    observations: Observations,
    features: Sequence[FeatureGroup | Column],
    label: SourceColumn | Label | Sequence[SourceColumn | Label],
    task: str,
    gates: Sequence[Gate] = (),
    baseline: Sequence[FeatureGroup | Column] = (),
    holdout: float | str = 0.2,
    embargo: str | int = 0,
    seed: int = 0,
    accept_findings: Sequence[str] = (),
    search: Search | None = None,
    metrics: Sequence[Metric] = (),
    threshold: Costs | None = None,
    mutable: Mapping[str, str] | None = None,
    distributed: Distributed | None = None,
    description: str = "",
    owner: str = "",
) -> Callable[[Callable[..., Any]], Model]:
    """Turn a training function into a `Model` (decorator).

    Args:
        features: Inputs of the model: whole views and request features, and single features of views, such as
            `Card.n_1h`.
        label: A column of a source keyed by one of the observations' entities, or a `Label` of one that matures; for a
            regression also a list of several, each an output named after its column.
        task: `binary`, `multiclass` or `regression`.
        gates: Conditions that a version must meet to go live.
        baseline: Features on which the same function trains the baseline model; empty: a constant predictor.
        holdout: The most recent rows, held out for evaluation: a share of the rows, or a duration.
        embargo: Duration before each later part in which rows are left out, for labels that overlap in time.
        accept_findings: Leakage findings to accept, such as "predicts-alone:View.feature".
        search: Hyperparameter search (`mainspring search`); the function takes the parameters as its third argument.
        metrics: Metrics in addition to the task's: the project's own (`ms.metric`), or such as
            `ms.recall_at_precision(0.9)`.
        threshold: Costs of errors (`ms.Costs`). The threshold of a binary task is chosen to minimise them on the
            validation rows and recorded with the version; its cost, precision and recall are measured.
        mutable: Inputs that somebody could change, by full name, and in which direction: `any`, `increase` or
            `decrease`. `mainspring explain --wanted` looks for another answer among them.
        distributed: Train in several processes (`ms.Distributed`): the function is called in each.

    Raises:
        Invalid: An argument has a wrong type, `task` is unknown, a metric is for another task or declared twice, the
            search's metric is not measured, `holdout` is neither a share in (0, 0.6] nor a duration, `embargo` is not a
            duration, there are no features, or `accept_findings` names an unknown check.
    """
    check_id(name, "model")
    owner_of = f"The {{}} of model {name!r}"
    expect_each(gates, Gate, owner_of.format("gates"), fix='give a list such as [ms.gates.beats("auc", by=0.01)].')
    expect(search, (Search, NoneType), owner_of.format("search"), fix="write search=ms.Search(...).")
    expect(
        distributed,
        (Distributed, NoneType),
        owner_of.format("distributed"),
        fix="write distributed=ms.Distributed(...).",
    )
    expect(seed, int, owner_of.format("seed"), fix="give a whole number.")
    expect(holdout, (int, float, str), owner_of.format("holdout"), fix="give a share or a duration.")
    expect_each(accept_findings, str, owner_of.format("accepted findings"), fix='write a list of "CHECK:SUBJECT".')
    if task not in TASKS:
        raise Invalid(f"Model {name!r} has the task {task!r}.", fix=f"use one of {', '.join(TASKS)}.")
    if isinstance(holdout, str):
        parse_duration(holdout)
    elif not 0 < holdout <= 0.6:  # half as much goes to validation
        raise Invalid(
            f"Model {name!r} has holdout={holdout}.", fix='use a share such as 0.2, or a duration such as "30d".'
        )
    parse_duration(embargo)
    _check_metrics(name, task, metrics, threshold, search, label)
    expect(
        observations,
        Observations,
        owner_of.format("observations"),
        fix="give an ms.Observations, without quotes.",
    )
    kinds, fix = (SourceColumn, list, tuple), "name a source's column, without quotes: payments.fraud."
    expect(label, kinds, owner_of.format("label"), fix=fix)
    labels = as_labels(name, label, task, observations)
    groups, columns = _chosen(name, "features", features)
    if not columns:
        raise Invalid(f"Model {name!r} has no features.", fix="name at least one feature view.")
    few, baseline_columns = _chosen(name, "baseline", baseline)
    unknown = [each for each in accept_findings if each.partition(":")[0] not in CHECKS or ":" not in each]
    if unknown:
        raise Invalid(
            f"Model {name!r} accepts the findings {unknown}.",
            fix=f'write "CHECK:SUBJECT"; the checks are {", ".join(CHECKS)}.',
        )

    changing = {} if mutable is None else mutable
    expect(changing, Mapping, owner_of.format("mutable inputs"), fix='write a dict such as {"Schedule.hour": "any"}.')
    check_mutable(changing, dict.fromkeys(columns, False), f"Model {name!r}")

    def build(train: Callable[..., Any]) -> Model:
        if not callable(train):
            raise Invalid(
                f"Model {name!r} is made of {train!r}.", fix="put @ms.model(...) above a function (data, run)."
            )
        built = Model(
            name,
            train=train,
            observations=observations,
            features=groups,
            columns=columns,
            label=labels[0],
            labels=labels,
            task=task,
            gates=tuple(gates),
            baseline=few,
            baseline_columns=baseline_columns,
            holdout=holdout,
            embargo=embargo,
            seed=seed,
            accept_findings=tuple(accept_findings),
            search=search,
            metrics=tuple(metrics),
            threshold=threshold,
            mutable=changing,
            distributed=distributed,
            description=description or (train.__doc__ or "").strip(),
            owner=owner,
        )
        _ = built.slice_columns  # refuses unknown ones
        _check_gates(built)
        declare(built)
        return built

    return build


def named_features(groups: Sequence[FeatureGroup], columns: Collection[str]) -> list[str]:
    """Return the names of groups whose features are all in `columns`, and the full names of other features there."""
    names = []
    for group in groups:
        chosen = [name for name in group.columns if name in columns]
        names += [group.name] if len(chosen) == len(group.columns) else chosen
    return names


def _chosen(name: str, argument: str, features: Any) -> tuple[tuple[FeatureGroup, ...], tuple[str, ...]]:
    """Return the distinct groups of some features, and the features' full names in the groups' order.

    Raises:
        Invalid: An element is neither a group nor a feature of a view.
    """
    if not isinstance(features, (list, tuple)):
        raise Invalid(f"Model {name!r} has {argument}={features!r}.", fix=f"write a list: {argument}=[...].")
    groups: list[FeatureGroup] = []
    names: set[str] = set()
    for element in features:
        if isinstance(element, (FeatureView, RequestFeatures)):
            group, columns = element, element.columns
        elif isinstance(element, FeatureColumn):
            group, columns = element.view, (element.name,)
        else:
            fix = "name a feature view, request features, or a view's feature: Card, Card.n_1h"
            fix += ", without quotes." if isinstance(element, str) else "."
            raise Invalid(f"Model {name!r} has {element!r} in its {argument}, a {type(element).__name__}.", fix=fix)
        if not any(group is other for other in groups):
            groups.append(group)
        names.update(columns)
    return tuple(groups), tuple(name for group in groups for name in group.columns if name in names)


def _check_columns(
    name: str, groups: str, given: Sequence[FeatureGroup], columns: str, chosen: Collection[str]
) -> None:
    """Raise if a chosen feature is in no group, or a group has no chosen feature: `replace` keeps the old columns.

    Raises:
        Invalid: Columns and groups do not match.
    """
    available = {column for group in given for column in group.columns}
    missing = [column for column in chosen if column not in available]
    unused = [group.name for group in given if group.columns and not any(column in chosen for column in group.columns)]
    if missing or unused:
        mismatch = f"{', '.join(missing)} not in the groups" if missing else f"none of {', '.join(unused)} is selected"
        raise Invalid(
            f"The columns of model {name!r} do not match its {groups}: {mismatch}.",
            fix=f"with dataclasses.replace, give {columns}=() for all columns, or their names.",
        )


def _named_by(gate: Gate) -> Sequence[str]:
    if isinstance(gate, DataGate):
        return [gate.metric] if gate.kind == "range" else gate.columns
    if isinstance(gate, RobustGate):
        return [name for name, _ in gate.trigger]
    return [name for each in gate.canaries for name, _ in each.features] if isinstance(gate, CanaryGate) else ()


def _check_gates(model: Model) -> None:
    """Raise if a gate names what is not a feature of the model, or a fairness that its task does not have.

    Raises:
        Invalid: It does.
    """
    ends = {name.rpartition(".")[2] for name in model.columns}
    for gate in model.gates:
        if isinstance(gate, FairnessGate) and (refused := gate.refuses(model.task)):
            raise Invalid(f"Model {model.name!r} has the gate {str(gate)!r}, but {refused[0]}", fix=refused[1])
        whole = not isinstance(gate, DataGate) or gate.kind == "range"
        for name in _named_by(gate):
            if name not in model.columns and (whole or name not in ends):
                raise Invalid(
                    f"A gate of model {model.name!r} names the feature {name!r}, which it does not have.",
                    fix=f"use one of {', '.join(model.columns)}.",
                )


def _check_metrics(
    name: str,
    task: str,
    metrics: Sequence[Metric],
    threshold: Costs | None,
    search: Search | None,
    label: Any,
) -> None:
    for metric in metrics:
        if not isinstance(metric, Metric):
            raise Invalid(
                f"Model {name!r} has the metric {metric!r}, which is not a metric.",
                fix="put @ms.metric(higher_is_better=...) above a function, or use one such as ms.recall_at_k(100).",
            )
        if not is_of(task, metric):
            raise Invalid(
                f"Model {name!r} of the task {task!r} has the metric {metric.name!r} of another task.",
                fix=f"the task has {', '.join(metrics_of(task))}; @ms.metric makes one of your own.",
            )
    names = [metric.name for metric in metrics]
    if len(set(names)) < len(names):
        raise Invalid(f"Model {name!r} lists a metric twice: {names}.", fix="name each metric once.")
    several = label if isinstance(label, (list, tuple)) and len(label) > 1 else []
    columns = [column.column for column in several if isinstance(column, SourceColumn)]
    split = [of_label(metric, column) for metric in (*metrics_of(task), *names) for column in columns]
    if clash := sorted(set(split) & set(names)):
        raise Invalid(
            f"Model {name!r} has the metric {clash[0]!r}, which is also the name of a label's metric.",
            fix='give it another name: ms.metric(name="...").',
        )
    costs: Any = threshold
    if costs is not None and not (isinstance(costs, Costs) and task == "binary"):
        raise Invalid(
            f"Model {name!r} of the task {task!r} has the threshold {threshold!r}.",
            fix="for a binary task, write threshold=ms.Costs(false_positive=1, false_negative=20).",
        )
    if search is None:
        return
    optimised = named(search.metric)
    if search.metric not in (*names, *split) and not (optimised is not None and is_of(task, optimised)):
        raise Invalid(
            f"Model {name!r} of the task {task!r} has a search by {search.metric!r}, which is not one of its metrics.",
            fix=f"use one of {', '.join([*metrics_of(task), *names, *split])}, or declare it: metrics=[...].",
        )


@dataclass(frozen=True, slots=True)
class TrainReport:
    """Result of one training."""

    model: str
    version: str
    digest: str
    run_id: str
    training_rows: int
    holdout_rows: int
    metrics: dict[str, float]  # on the held-out rows
    baseline: dict[str, float]
    seconds: float
    findings: list[str] = field(default_factory=list)  # leakage warnings
    undefined: list[str] = field(default_factory=list)  # metrics that the held-out rows do not define
    threshold: float | None = None  # the chosen threshold, for a model with costs
    left_out: dict[str, int] = field(default_factory=dict)  # observations without a label, by reason
    notes: list[str] = field(default_factory=list)  # notes on rows left out and on changed files, as sentences
