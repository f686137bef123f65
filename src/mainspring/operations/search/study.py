"""Storage of the trials of a search: a file in its folder or, with runs on Postgres, a schema there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mainspring.project import Project
from mainspring.project.tenancy import schema_name
from mainspring.training.space import Search

if TYPE_CHECKING:
    import sqlalchemy as sa

    from mainspring.training.search.study import Study

STUDY = "study.db"
_LOCK_KEY = 0x6F7074756E61  # one process at a time creates Optuna's tables


@contextmanager
def opened_study(
    project: Project, search: Search, folder: Path, name: str, *, seed: int, workers: int
) -> Iterator[Study]:
    """Context with the study `name`, created if missing. In `folder` it has its own file and needs no name.

    Raises:
        MissingExtra: Optuna or the driver of Postgres is not installed.
        Unavailable: The server does not respond.
    """
    from mainspring.training.search.study import Study, study_errors

    at = project.settings.tracking
    if at.scheme in ("sqlite", "memory"):
        study = Study(folder / STUDY, search, seed=seed, workers=workers)
    else:
        from mainspring.core.catalog import open_engine

        with study_errors():
            schema = schema_name("optuna", project.settings.scope)  # MLflow's tables share names with Optuna's
            engine = open_engine(at.text, schema)
            _make_schema(engine, schema)
            with engine.begin() as holding:
                _lock(holding)
                study = Study(engine, search, seed=seed, workers=workers, name=name)
    try:
        yield study
    finally:
        study.close()


def _make_schema(engine: sa.Engine, schema: str) -> None:
    import sqlalchemy as sa

    with engine.begin() as connection:
        _lock(connection)
        there = sa.text("SELECT 1 FROM pg_namespace WHERE nspname = :schema")
        if connection.execute(there, {"schema": schema}).first() is None:
            connection.execute(sa.schema.CreateSchema(schema))


def _lock(connection: sa.Connection) -> None:
    import sqlalchemy as sa

    connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
