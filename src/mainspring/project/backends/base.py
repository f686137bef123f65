"""An adapter by its URL's scheme, and those on which every other part is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.core.errors import Invalid, MissingExtra
from mainspring.core.locks import FileLocks
from mainspring.core.settings import Url

if TYPE_CHECKING:
    from mainspring.project import Project

Build = Callable[["Context"], Any]


@dataclass(frozen=True, slots=True)
class Context:
    """Context from which an adapter is built: its URL, and the project for its dependencies."""

    url: Url
    project: Project

    @property
    def state(self) -> Path:
        return self.project.settings.state


def lazily(module: str, name: str, *, extra: str) -> Any:
    """Import `module` and return its `name`.

    Raises:
        MissingExtra: The module's own dependencies are not installed.
    """
    try:
        return getattr(import_module(f"mainspring.{module}"), name)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("mainspring"):
            raise
        raise MissingExtra(f"{name} ({error.name})", extra) from error


def by_database(build: Build) -> dict[str, Build]:
    """Return the adapter for each kind of database that SQLAlchemy opens."""
    return dict.fromkeys(("sqlite", "postgresql", "postgres"), build)


def by_catalog(build: Build) -> dict[str, Build]:
    """Return the adapter for each kind of catalog; one in memory is a SQLite database too."""
    return {**by_database(build), "memory": build}


def in_catalog(package: str, name: str, extra: str) -> dict[str, Build]:
    return by_catalog(lambda at: lazily(f"{package}.adapters.catalog", name, extra=extra)(at.project.engine))


def _on_the_server(at: Context) -> Any:
    from mainspring.project.catalog import schema_of

    locks = lazily("core.database_locks", "DatabaseLocks", extra="postgres")
    return locks(at.url, schema_of(at.project.settings.scope))


def _beside(catalog: Path) -> FileLocks:
    """Return the locks of a catalog that is a file; they lie beside it, independent of the profile's state folder."""
    real = catalog.resolve()
    return FileLocks(real.parent / "locks" / ("" if real.name == "catalog.db" else f"of-{real.name}"))


LOCKS: Mapping[str, Build] = {
    "sqlite": lambda at: _beside(at.url.path),
    "memory": lambda at: at.project.own_locks,
    "sealed": lambda at: at.project.own_locks,
    **dict.fromkeys(("postgresql", "postgres"), _on_the_server),
}


def build(port: str, table: Mapping[str, Build], context: Context) -> Any:
    """Return the adapter of `port` for `context.url`.

    Raises:
        Invalid: There is no adapter for its scheme.
        MissingExtra: The adapter's dependencies are not installed.
    """
    scheme = context.url.scheme
    if scheme in table:
        return table[scheme](context)
    for entry in entry_points(group=f"mainspring.{port}", name=scheme):
        return entry.load()(context)
    raise Invalid(f"No {port} for {context.url.shown!r}.", fix=f"use one of {sorted(f'{name}://' for name in table)}.")
