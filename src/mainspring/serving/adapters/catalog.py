"""In the catalog: the routing table, one row an endpoint and one row that counts the changes; and measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, metadata
from mainspring.core.errors import Conflict
from mainspring.serving.model import Baseline, Route, normalised, stamped
from mainspring.serving.simulation_report import SimulationReport

routes_table = sa.Table(
    "routes",
    metadata,
    sa.Column("endpoint", sa.String(128), primary_key=True),
    sa.Column("route", sa.Text, nullable=False),
)
revision_table = sa.Table(
    "routes_revision",
    metadata,
    sa.Column("only", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
)
baselines_table = sa.Table(
    "endpoint_baselines",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("endpoint", sa.String(128), nullable=False),
    sa.Column("measured_at", sa.BigInteger, nullable=False),
    sa.Column("baseline", sa.Text, nullable=False),
)
sa.Index("endpoint_baselines_by_endpoint", baselines_table.c.endpoint, baselines_table.c.measured_at)
simulations_table = sa.Table(
    "endpoint_simulations",
    metadata,
    sa.Column("endpoint", sa.String(128), primary_key=True),
    sa.Column("report", sa.Text, nullable=False),
)
_THE_ROW = 1


class CatalogRoutes:
    """`Routes`, shared by every process of a project."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = str(engine.url.database)

    def publish(self, routes: Sequence[Route], *, after: int | None = None) -> int:
        table = normalised(routes)
        with catalog_errors(self._name):
            self._ensure_revision()
            with self._engine.begin() as connection:
                # The write first: it takes the lock, so nobody publishes between our reading and our writing.
                connection.execute(sa.update(revision_table).values(revision=revision_table.c.revision))
                revision = _revision(connection)
                if after not in (None, revision):
                    raise Conflict(
                        f"The routing table has changed: revision {revision}, not {after}.", fix="publish it again."
                    )
                if revision and _read(connection) == table:
                    return revision
                connection.execute(sa.delete(routes_table))
                if table:
                    rows = [
                        {"endpoint": name, "route": msgspec.json.encode(route).decode()}
                        for name, route in table.items()
                    ]
                    connection.execute(sa.insert(routes_table), rows)
                connection.execute(sa.update(revision_table).values(revision=revision + 1))
                return revision + 1

    def revision(self) -> int:
        with catalog_errors(self._name), self._engine.connect() as connection:
            return _revision(connection)

    def current(self) -> Mapping[str, Route]:
        with catalog_errors(self._name), self._engine.connect() as connection:
            # Both in one snapshot: a SELECT alone opens none on every driver, so the revision is read on both sides.
            while True:
                revision = _revision(connection)
                table = _read(connection)
                if _revision(connection) == revision:
                    return stamped(table, revision)

    def _ensure_revision(self) -> None:
        with self._engine.connect() as connection:
            if connection.execute(sa.select(revision_table.c.revision)).first() is not None:
                return
        try:
            with self._engine.begin() as connection:
                connection.execute(sa.insert(revision_table).values(only=_THE_ROW, revision=0))
        except sa.exc.IntegrityError:  # another process was first
            pass


class CatalogBaselines:
    """`Baselines`, shared by every process of a project."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = str(engine.url.database)

    def add(self, baseline: Baseline) -> None:
        values = {
            "endpoint": baseline.endpoint,
            "measured_at": baseline.measured_at,
            "baseline": msgspec.json.encode(baseline).decode(),
        }
        with catalog_errors(self._name), self._engine.begin() as connection:
            connection.execute(sa.insert(baselines_table).values(**values))

    def newest(self, endpoint: str, count: int = 1) -> Sequence[Baseline]:
        chosen = (
            sa.select(baselines_table.c.baseline)
            .where(baselines_table.c.endpoint == endpoint)
            .order_by(baselines_table.c.measured_at.desc(), baselines_table.c.id.desc())
            .limit(count)
        )
        with catalog_errors(self._name), self._engine.connect() as connection:
            return [msgspec.json.decode(text, type=Baseline) for text in connection.execute(chosen).scalars()]


class CatalogSimulations:
    """`Simulations`, shared by every process of a project."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name = str(engine.url.database)

    def put(self, report: SimulationReport) -> None:
        text = msgspec.json.encode(report).decode()
        with catalog_errors(self._name), self._engine.begin() as connection:
            connection.execute(sa.delete(simulations_table).where(simulations_table.c.endpoint == report.endpoint))
            connection.execute(sa.insert(simulations_table).values(endpoint=report.endpoint, report=text))

    def last(self, endpoint: str) -> SimulationReport | None:
        chosen = sa.select(simulations_table.c.report).where(simulations_table.c.endpoint == endpoint)
        with catalog_errors(self._name), self._engine.connect() as connection:
            text = connection.execute(chosen).scalar()
        try:
            return None if text is None else msgspec.json.decode(text, type=SimulationReport)
        except msgspec.ValidationError:
            return None


def _revision(connection: sa.Connection) -> int:
    return int(connection.execute(sa.select(revision_table.c.revision)).scalar() or 0)


def _read(connection: sa.Connection) -> dict[str, Route]:
    rows = connection.execute(sa.select(routes_table).order_by(routes_table.c.endpoint))
    return {row.endpoint: msgspec.json.decode(row.route, type=Route) for row in rows}
