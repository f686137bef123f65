"""`apply`: store the project's definitions as those of the installation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mainspring.core.errors import InvalidData, InvalidDefinition, NotFound
from mainspring.core.schema import DType
from mainspring.data.model import SEQUENCE
from mainspring.delivery.routing import version_of
from mainspring.operations.auditing import audit
from mainspring.operations.fallbacks import check_fallbacks
from mainspring.operations.features.function_checks import check_functions
from mainspring.operations.model_memory import check_memory
from mainspring.operations.policies import own_policies
from mainspring.operations.promote import gated, publish_routes
from mainspring.project import Project
from mainspring.project.definitions.applied import Change, difference
from mainspring.training.label import label_keys
from mainspring.training.model import Model

_SUMMARISED = 20  # maximum changes in the audit log's event

Contents = Mapping[tuple[str, str], str]


def apply(project: Project, *, dry_run: bool = False) -> tuple[list[Change], Contents]:
    """Check the definitions, store them, and return the changes and all applied definitions.

    A chain of answers that would answer otherwise than each of its versions becomes a version. The routing table
    follows at once, so that gateways serve a new endpoint a moment later.

    First the tables are migrated to the declarations of their sources (new columns, wider types, flags for last
    values), so that readers of the applied definitions can read the data by them.

    Raises:
        Invalid: A policy is not valid, or a fallback answer does not fit the version that its endpoint serves.
        TooLarge: The model of an endpoint is known not to fit the memory for models.
        InvalidDefinition: The definitions are inconsistent, or a table cannot be migrated to its source's declaration;
            the applied definitions and all tables are unchanged.
    """
    definitions = project.definitions
    contents = definitions.contents()
    own_policies(project)
    _check_labels(project)
    _check_endpoints(project)
    check_functions(project, project.applied.current(), contents)
    with project.locks.hold("apply"):
        changes = [*difference(project.applied.current(), contents), *tables_needed(project)]
        if changes and not dry_run:
            for name in definitions.sources:
                conform(project, name)
            with project.audit.together():
                project.applied.replace(contents, project.wall.now())
                prompts = {name: prompt.document() for name, prompt in definitions.prompts.items()}
                project.prompts.record(prompts, project.wall.now())
                audit(project, "apply", "definitions", _summary(changes))
        if definitions.answers and not dry_run:
            from mainspring.operations.answer_versions import record_versions

            record_versions(project)
        if changes and not dry_run:
            publish_routes(project)  # now, not when the worker comes round to it
    return changes, contents


def _check_endpoints(project: Project) -> None:
    bound = project.settings.memory_a_process is not None
    for endpoint in project.definitions.endpoints.values():
        if not bound and (endpoint.unusual is None or not endpoint.unusual.answer):
            continue
        try:
            version = version_of(endpoint, project.versions, gated=gated(project))
        except NotFound:  # a promotion will check it
            continue
        check_fallbacks(project, version, [endpoint])
        check_memory(project, version, [endpoint], gated(project))


def _check_labels(project: Project) -> None:
    """Raise if ingested values are not valid labels of a classification model, which the type of a number does not
    show.

    Raises:
        InvalidDefinition: A label of a classification model has fractions, or one of a binary model is neither 0 nor 1.
    """
    problems = []
    for model in project.definitions.models.values():
        column, task = model.label.column, model.task
        dtype = model.label.source.columns[column]
        if dtype not in (DType.Float32, DType.Float64) or task == "regression":
            continue
        if project.lake.version(model.label.source.name) is None:
            continue
        found = _first(project, model)
        if found is not None:
            problems.append(
                f"Label {model.label.name} of model {model.name!r} is a {dtype!r} with values such as {found:g}, and "
                f"the task is {task!r}. Fix: name a column of {'0 and 1' if task == 'binary' else 'whole numbers'}, or "
                "make it a regression."
            )
    if problems:
        raise InvalidDefinition(problems)


def _first(project: Project, model: Model) -> float | None:
    """Return a current label that is not a class of the model's task, `None` if there is none."""
    from mainspring.core.expr.sql import quote_name
    from mainspring.data import duck

    source, name = model.label.source, quote_name(model.label.column)
    wrong = f"{name} NOT IN (0, 1)" if model.task == "binary" else f"{name} <> trunc({name})"
    keys = ", ".join(map(quote_name, label_keys(model.observations, model.label)))
    order = ", ".join(f"{quote_name(each)} DESC NULLS LAST" for each in (*source.times, SEQUENCE))
    newest = f"SELECT {name} FROM labels QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {order}) = 1"
    with duck.session() as con:
        duck.register(con, "labels", project.lake.scan(source.name))
        row = con.execute(f"SELECT {name} FROM labels WHERE {wrong} LIMIT 1").fetchone()
        if row is not None:  # a later row may replace it; a table without such a row need not be sorted
            row = con.execute(f"SELECT {name} FROM ({newest}) WHERE {wrong} LIMIT 1").fetchone()
    return None if row is None else float(row[0])


def _summary(changes: Sequence[Change]) -> str:
    shown = [f"{change.sign} {change.kind} {change.name}" for change in changes[:_SUMMARISED]]
    more = len(changes) - len(shown)
    return ", ".join([*shown, f"and {more} more"] if more else shown)


def tables_needed(project: Project) -> list[Change]:
    """Return the changes that the tables need to match the declared sources.

    Raises:
        InvalidDefinition: A table cannot be migrated.
    """
    changes, problems = [], []
    for name, source in project.definitions.sources.items():
        try:
            lines = project.ingestor.needed(source, project.definitions.keyings(name))
        except InvalidData as error:
            problems.append(str(error))
            continue
        if lines:
            changes.append(Change("~", "table", name, lines))
    if problems:
        raise InvalidDefinition(problems)
    return changes


def conform(project: Project, source: str) -> tuple[str, ...]:
    """Migrate the table of a source to its declaration; return the changes made."""
    definitions = project.definitions
    return project.ingestor.conform(definitions.source(source), definitions.keyings(source))
