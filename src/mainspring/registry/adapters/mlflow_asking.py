"""Execution of one run query on MLflow's tables.

First the matches of each condition are counted by index, up to a bound. If a condition matches few runs, only those
runs are read. Otherwise runs are scanned in the requested order, by index, and tested against the conditions until the
page is full. In both cases the cost depends on the page, not on the number of runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from mainspring.core.time import MILLISECOND
from mainspring.registry.adapters.mlflow_conditions import TABLES, Conditions, narrowing, there
from mainspring.registry.adapters.mlflow_tables import begin, experiments, latest, number, plain, runs, unindexed
from mainspring.registry.run_matching import NUMBERS_FIRST, THEN_NOTHING, THEN_TEXTS, fold, holds
from mainspring.registry.searching import Column, Condition, Kind, RunQuery, RunRow

FEW = 400  # candidate runs that are tested one by one instead of scanning in order
MANY = 5000  # the same with several conditions, for which an ordered scan may take very long to match
Place = tuple[int, Any, str]
_MODEL = Column(Kind.ATTRIBUTE, "model")


class Asking:
    """One query during its execution."""

    def __init__(self, say: Conditions, engine: sa.Engine, connection: sa.Connection, query: RunQuery) -> None:
        self._say = say
        self._engine = engine
        self._connection = connection
        self._query = query
        self._columns: dict[Column, list[Condition]] = {}
        for condition in query.conditions:
            self._columns.setdefault(condition.column, []).append(condition)
        self._experiments = _experiments(connection)
        self.models = {each.experiment_id: each.name for each in self._experiments if each.lifecycle_stage == "active"}
        missing = () if query.nested else self._ask(self._say.missing_parents().limit(1))
        self._has_orphans = bool(missing)
        self._narrowed = self._narrow()
        self.where = self._where()

    def places(self, after: Place | None) -> list[Place]:
        """Return the positions of the next runs: up to one more than the page holds."""
        found: list[Place] = []
        for part in self._parts():
            if after is not None and part < after[0]:
                continue
            left = self._query.limit + 1 - len(found)
            found += self._part(part, after if after is not None and after[0] == part else None, left)
            if len(found) > self._query.limit:
                break
        return found

    def count(self, at_most: int) -> int:
        """Return the number of matching runs, counted up to `at_most`."""
        some = self._some().limit(at_most).subquery()
        return int(self._connection.execute(sa.select(sa.func.count()).select_from(some)).scalar_one())

    def _some(self) -> sa.Select[Any]:
        """Select one row per matching run, starting from the most selective column."""
        narrow = [
            (column, some)
            for column, its in self._columns.items()
            if column.kind is not Kind.ATTRIBUTE and (some := narrowing(its))
        ]
        if self._narrowed or not narrow:
            return sa.select(1).select_from(runs).where(*self.where)
        # Equality is usually more selective than a range.
        column, some = min(narrow, key=lambda each: all(one.operator != "=" for one in each[1]))
        source = self._walked(TABLES[column.kind])
        others = self._where(but=column if len(some) == len(self._columns[column]) else None)
        return self._say.on_rows(sa.select(1).select_from(source).where(*others), column, some).order_by(None)

    def _parts(self) -> Sequence[int]:
        column = self._query.order.column
        if column.kind is Kind.ATTRIBUTE:
            if column.name == "started":
                return (NUMBERS_FIRST,)
            return (NUMBERS_FIRST, THEN_NOTHING) if column.is_number else (THEN_TEXTS,)
        if column.kind is Kind.METRIC:
            return (NUMBERS_FIRST, THEN_NOTHING)
        return (NUMBERS_FIRST, THEN_TEXTS, THEN_NOTHING)

    def _part(self, part: int, after: Place | None, limit: int) -> list[Place]:
        order, in_us = self._query.order, 1
        source: Any = runs
        run_id: Any = runs.c.run_uuid
        conditions: list[Any] = []
        backward = order.descending or part == THEN_NOTHING
        if part == THEN_NOTHING:
            value: Any = runs.c.start_time
            in_us, conditions = MILLISECOND, [self._without(order.column)]
        elif order.column.kind is Kind.ATTRIBUTE:
            if order.column.is_number:
                value, in_us = self._say.number_of(order.column), MILLISECOND
                if order.column.name != "started":
                    conditions = [value.is_not(None)]
            elif order.column.name == "model":
                source = runs.join(experiments, experiments.c.experiment_id == runs.c.experiment_id)
                value = plain(self._engine, experiments.c.name)
            else:
                value = plain(self._engine, self._say.text_of(order.column))
        else:
            table = TABLES[order.column.kind]
            source, run_id = self._walked(table), table.c.run_uuid
            value, conditions = self._value_in(table, part)
        if after is not None:
            conditions.append(_behind(value, run_id, after[1] // in_us if in_us > 1 else after[1], after[2], backward))
        how = sa.desc if backward else sa.asc
        wanted = (
            sa.select(value.label("value"), run_id.label("id"))
            .select_from(source)
            .where(*conditions, *self.where)
            .order_by(how(value), how(run_id))
            .limit(limit)
        )
        return [(part, (value or 0) * in_us if in_us > 1 else value, run) for value, run in self._ask(wanted)]

    def _value_in(self, table: sa.TableClause, part: int) -> tuple[Any, list[Any]]:
        key = table.c.key == self._query.order.column.name
        if table is latest:
            return table.c.value, [key, there(table)]
        as_number = number(self._engine, table)
        if part == NUMBERS_FIRST:
            return as_number, [key, as_number.is_not(None)]
        text = begin(self._engine, table)
        return text, [key, unindexed(self._engine, as_number).is_(None), text.is_not(None)]

    def _walked(self, table: sa.TableClause) -> sa.Join:
        """Join a table with its runs. Without the hint, SQLite would start from `runs` and read all of them."""
        own = table.c.run_uuid if self._narrowed else unindexed(self._engine, table.c.run_uuid)
        return table.join(runs, runs.c.run_uuid == own)

    def _without(self, column: Column) -> Any:
        if column.kind is Kind.ATTRIBUTE:
            return self._say.number_of(column).is_(None)
        table = TABLES[column.kind].alias()
        of_run = [table.c.run_uuid == runs.c.run_uuid, table.c.key == column.name, there(table)]
        return ~sa.select(1).where(*of_run).exists()

    def _where(self, but: Column | None = None) -> list[Any]:
        """Return the conditions on a row of `runs`, optionally without those on one column."""
        conditions, wanted = [runs.c.lifecycle_stage == "active"], set(self.models)
        for column, its in self._columns.items():
            if column == _MODEL:
                wanted &= {number for number, name in self.models.items() if all(holds(_of(name), one) for one in its)}
            elif column != but:
                conditions += self._say.on_run(column, its)
        if len(wanted) == 1:
            conditions.append(runs.c.experiment_id == next(iter(wanted)))
        elif len(wanted) < len(self._experiments):
            conditions.append(runs.c.experiment_id.in_(sorted(wanted)))
        if not self._query.nested:
            conditions.append(self._say.is_outermost(orphans=self._has_orphans))
        return [*self._narrowed, *conditions, *self._words()]

    def _words(self) -> list[Any]:
        return [self._say.has_word(word, self._of_models(word)) for word in self._query.words]

    def _of_models(self, word: str) -> list[int]:
        return [number for number, name in self.models.items() if fold(word) in fold(name)]

    def _narrow(self) -> list[Any]:
        """Return a condition that restricts the query to a small candidate set; none if no set is small."""
        several = len(self._columns) + len(self._query.words) > 1
        most, fewest = max(FEW, MANY) if several else FEW, None
        many = most
        for column, its in self._columns.items():
            probe = self._say.rare(column, its) if column.kind is not Kind.ATTRIBUTE else None
            if probe is None:
                continue
            some = probe.limit(many + 1).subquery()
            count = int(self._connection.execute(sa.select(sa.func.count()).select_from(some)).scalar_one())
            if count <= many:
                many, fewest = count, probe
        if fewest is not None:
            # Repeat the limit, so that Postgres uses the same index as in the count.
            return [runs.c.run_uuid.in_(fewest.limit(most + 1))]
        for probe in self._looked_through():
            found = [run_id for (run_id,) in self._ask(probe.limit(FEW + 1))]
            if len(found) <= FEW:
                return [runs.c.run_uuid.in_(found)]
        return []

    def _looked_through(self) -> Iterator[sa.Select[Any]]:
        """Yield probes that need a scan: words, and texts of the run itself, have no index."""
        if self._query.words:
            yield self._say.some_runs(*self._words())
        for column, its in self._columns.items():
            if (
                column.kind is Kind.ATTRIBUTE
                and column != _MODEL
                and (probe := self._say.rare(column, its)) is not None
            ):
                yield probe

    def _ask(self, wanted: sa.Select[Any]) -> Sequence[Any]:
        return self._connection.execute(wanted).all()


def models_of(connection: sa.Connection) -> dict[int, str]:
    """Return experiment id -> model name for the models that are not deleted."""
    return {each.experiment_id: each.name for each in _experiments(connection) if each.lifecycle_stage == "active"}


def _experiments(connection: sa.Connection) -> Sequence[Any]:
    return connection.execute(sa.select(experiments)).all()


def _of(model: str) -> RunRow:
    return RunRow("", "", model, "", 0, None)


def _behind(value: Any, run_id: Any, after: Any, after_id: str, backward: bool) -> Any:
    """Return the condition for rows after a position. The looser condition comes first: it can use the index."""
    if backward:
        return sa.and_(value <= after, sa.or_(value < after, run_id < after_id))
    return sa.and_(value >= after, sa.or_(value > after, run_id > after_id))
