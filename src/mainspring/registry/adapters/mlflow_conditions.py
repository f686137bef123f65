"""Conditions on runs as SQL over MLflow's tables."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from mainspring.core.errors import Invalid
from mainspring.core.time import MILLISECOND
from mainspring.registry.adapters.mlflow_tables import begin, latest, number, params, plain, runs, tags, unindexed
from mainspring.registry.run_matching import LONGEST_ORDERED, fold
from mainspring.registry.searching import NUMBERS, PARENT, Column, Condition, Kind

TABLES: Mapping[Kind, sa.TableClause] = {Kind.METRIC: latest, Kind.PARAM: params, Kind.TAG: tags}
_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Conditions:
    """Translation of search conditions into the SQL dialect of one database."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def on_run(self, column: Column, conditions: Sequence[Condition]) -> Sequence[Any]:
        """Return the conditions on one column as conditions on a row of `runs`."""
        if column.kind is Kind.ATTRIBUTE:
            return [self._attribute(condition) for condition in conditions]
        table = TABLES[column.kind].alias("its")
        of_run = (table.c.run_uuid == runs.c.run_uuid, table.c.key == column.name)
        absent = [~sa.select(1).where(*of_run, _is_there(table)).exists()] if any(map(_is_null, conditions)) else []
        on_row = [self._on_row(table, condition) for condition in conditions if not _is_null(condition)]
        return [*absent, sa.select(1).where(*of_run, *on_row).exists()] if on_row else absent

    def rare(self, column: Column, conditions: Sequence[Condition]) -> sa.Select[Any] | None:
        """Select the runs that match the conditions on one column, cheaply where few match.

        Return None where no condition is selective: negated conditions match most runs.
        """
        some = narrowing(conditions)
        if column.kind is Kind.ATTRIBUTE:
            some = [] if column.name in NUMBERS else some
            return self.some_runs(*map(self._attribute, some)) if some else None
        if not some:
            return None
        return self.on_rows(sa.select(TABLES[column.kind].c.run_uuid), column, some)

    def on_rows(self, wanted: sa.Select[Any], column: Column, some: Sequence[Condition]) -> sa.Select[Any]:
        """Add to `wanted` the conditions on the rows of a column's table, ordered by their index.

        A caller that reads only a few rows should drop the order: Postgres would scan the whole table, expecting an
        early match.
        """
        table = TABLES[column.kind]
        wanted = wanted.where(table.c.key == column.name, *(self._by_index(table, condition) for condition in some))
        if any(condition.operator == "=" for condition in some):
            return wanted.order_by(table.c.run_uuid)
        if any(isinstance(condition.value, (int, float)) for condition in some):
            return wanted.order_by(table.c.value if column.kind is Kind.METRIC else number(self._engine, table))
        return wanted

    def _by_index(self, table: Any, condition: Condition) -> Any:
        """Return the condition on a row, using only indexed expressions where they suffice: the index holds a text's
        prefix.
        """
        if condition.operator not in ("=", "in") or isinstance(condition.value, (int, float)):
            return self._on_row(table, condition)
        texts = condition.value if isinstance(condition.value, tuple) else (str(condition.value),)
        begins, beginnings = begin(self._engine, table), [text[:LONGEST_ORDERED] for text in texts]
        within = begins == beginnings[0] if len(texts) == 1 else begins.in_(beginnings)
        whole = all(len(text) < LONGEST_ORDERED for text in texts)
        return within if whole else sa.and_(within, self._on_row(table, condition))

    def _on_row(self, table: Any, condition: Condition) -> Any:
        """Return the condition on a metric, parameter or tag as a condition on a row of its table."""
        if condition.operator == "is not null":
            return _is_there(table)
        if condition.column.kind is Kind.METRIC:
            return sa.and_(there(table), _COMPARE[_known(condition)](table.c.value, condition.value))
        if isinstance(condition.value, (int, float)):
            return _COMPARE[_known(condition)](number(self._engine, table), float(condition.value))
        return self._text(table.c.value, condition)

    def is_outermost(self, *, orphans: bool) -> Any:
        """Return the condition that a run has no parent that exists; with `orphans`, parents of some runs do not."""
        own = tags.alias("own")
        alone = ~sa.select(1).where(own.c.run_uuid == runs.c.run_uuid, own.c.key == PARENT).exists()
        if not orphans:  # as usual; then an index alone answers
            return alone
        of_missing = begin(self._engine, tags).in_(self.missing_parents())
        return sa.or_(alone, runs.c.run_uuid.in_(sa.select(tags.c.run_uuid).where(tags.c.key == PARENT, of_missing)))

    def missing_parents(self) -> sa.Select[Any]:
        """Select the ids that runs name as their parent, but no run has."""
        named = sa.select(begin(self._engine, tags).label("id")).where(tags.c.key == PARENT).distinct().subquery()
        above = (runs.c.run_uuid == named.c.id, runs.c.lifecycle_stage == "active")
        return sa.select(named.c.id).where(~sa.select(1).select_from(runs).where(*above).exists())

    def children(self, at_most: int) -> sa.Select[Any]:
        """Select the number of runs nested in the run of the parameter `parent`."""
        wanted = begin(self._engine, tags) == sa.bindparam("parent")
        nested = tags.join(runs, runs.c.run_uuid == unindexed(self._engine, tags.c.run_uuid))
        active = runs.c.lifecycle_stage == "active"
        some = sa.select(1).select_from(nested).where(tags.c.key == PARENT, wanted, active).limit(at_most)
        return sa.select(sa.func.count()).select_from(some.subquery())

    def some_runs(self, *conditions: Any) -> sa.Select[Any]:
        return sa.select(runs.c.run_uuid).where(*conditions)

    def has_word(self, word: str, of_models: Sequence[int]) -> Any:
        """Return the condition that a run's id or name contains a word, or that the run is of one of the models."""
        inside = [self._contains(text, word) for text in (runs.c.run_uuid, runs.c.name)]
        return sa.or_(*inside, runs.c.experiment_id.in_(of_models)) if of_models else sa.or_(*inside)

    def text_of(self, column: Column) -> Any:
        """Return the expression of a text attribute."""
        texts = {"id": runs.c.run_uuid, "name": runs.c.name, "status": runs.c.status}
        return sa.func.coalesce(texts[column.name], "")

    def number_of(self, column: Column) -> Any:
        """Return the expression of a time or duration attribute, in milliseconds."""
        started = runs.c.start_time
        return {"started": started, "ended": runs.c.end_time, "duration": runs.c.end_time - started}[column.name]

    def _attribute(self, condition: Condition) -> Any:
        column = condition.column
        if column.name in NUMBERS:
            value = self.number_of(column)
            if condition.operator in ("is null", "is not null"):
                return value.is_(None) if condition.operator == "is null" else value.is_not(None)
            return _in_milliseconds(value, _known(condition), condition.value)
        if condition.operator in ("is null", "is not null"):
            return sa.false() if condition.operator == "is null" else sa.true()
        return self._text(self.text_of(column), condition)

    def _text(self, text: Any, condition: Condition) -> Any:
        wanted: Any = condition.value
        match condition.operator:
            case "in":
                return text.in_(wanted)
            case "not in":
                return text.not_in(wanted)
            case "contains":
                return self._contains(text, wanted)
            case "like":
                return self._like(text, wanted)
            case "ilike":
                return self._like(self._folded(text), fold(wanted))
            case "=" | "!=":
                return _COMPARE[condition.operator](text, wanted)
        return _COMPARE[_known(condition)](plain(self._engine, text), wanted)

    def _folded(self, text: Any) -> Any:
        return sa.func.lower(plain(self._engine, text))

    def _contains(self, text: Any, wanted: str) -> Any:
        find = sa.func.instr if self._engine.dialect.name == "sqlite" else sa.func.strpos
        return find(self._folded(text), fold(wanted)) > 0

    def _like(self, text: Any, pattern: str) -> Any:
        # Backslash is literal: SQLite has no default escape character, and Postgres' is disabled here.
        return text.like(pattern) if self._engine.dialect.name == "sqlite" else text.like(pattern, escape="")


def narrowing(conditions: Sequence[Condition]) -> list[Condition]:
    """Return the selective conditions: all but the negated ones."""
    return [condition for condition in conditions if condition.operator not in ("is null", "!=", "not in")]


def there(table: Any) -> Any:
    """Return the condition that a row has a comparable value: not NaN, and not null."""
    return table.c.is_nan == sa.false() if "is_nan" in table.c else table.c.value.is_not(None)


def _is_there(table: Any) -> Any:
    """Return the condition that a row has a value, NaN included."""
    return table.c.value.is_not(None)


def _is_null(condition: Condition) -> bool:
    return condition.operator == "is null"


def _known(condition: Condition) -> str:
    if condition.operator not in _COMPARE:
        raise Invalid(f"{str(condition.column)!r} is a number, which {condition.operator!r} does not compare.")
    return condition.operator


def _in_milliseconds(value: Any, how: str, wanted: Any) -> Any:
    """Compare a column in milliseconds with microseconds, leaving the column bare so that its index is used."""
    below, above = int(wanted // MILLISECOND), int(-(-wanted // MILLISECOND))
    if how in ("=", "!=") and below != above:
        return sa.and_(value.is_not(None), sa.true() if how == "!=" else sa.false())
    return _COMPARE[how](value, below if how in (">", "<=", "=", "!=") else above)
