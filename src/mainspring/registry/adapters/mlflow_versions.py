"""Versions in MLflow's model registry. Its aliases mirror the alias moves in the catalog."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import sqlalchemy as sa

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.ids import check_id
from mainspring.registry.adapters.catalog import AliasMoves
from mainspring.registry.adapters.mlflow_store import mlflow, open_store, store_errors
from mainspring.registry.adapters.mlflow_tables import is_there, open_tables
from mainspring.registry.bundles import check_digest
from mainspring.registry.model import AliasMove, ModelVersion, UnknownVersion, check_alias, still_named
from mainspring.registry.ports import Check

_DIGEST, _CREATED = "mainspring.digest", "mainspring.created_at"
_PAGE = 1000
_DELETED = "Deleted_Internal"  # stage of a version that MLflow has deleted
_versions = sa.table(
    "model_versions",
    sa.column("name", sa.Text),
    sa.column("version", sa.Integer),
    sa.column("run_id", sa.Text),
    sa.column("creation_time", sa.BigInteger),
    sa.column("current_stage", sa.Text),
)
_tags = sa.table(
    "model_version_tags",
    sa.column("name", sa.Text),
    sa.column("version", sa.Integer),
    sa.column("key", sa.Text),
    sa.column("value", sa.Text),
)


class MlflowVersions:
    """Versions in MLflow's SQLAlchemy store. The first call other than `all` imports MLflow and opens the store.

    Args:
        url: SQLAlchemy URL of MLflow's database; not the catalog's, which is locked while an alias moves.
        engine: The catalog.
    """

    def __init__(self, url: str, engine: sa.Engine) -> None:
        if sa.make_url(url).database == engine.url.database and engine.dialect.name == "sqlite":
            raise Invalid(
                f"The tracking store and the catalog are both {engine.url.database}.",
                fix="set a separate file for each in mainspring.toml.",
            )
        self._url = url
        self._moves = AliasMoves(engine)

    @cached_property
    def _store(self) -> Any:
        return open_store("mlflow.store.model_registry.sqlalchemy_store", self._url)

    @cached_property
    def _tables(self) -> sa.Engine:
        return open_tables(self._url)

    def close(self) -> None:
        """Close the open connections; the next call opens new ones."""
        opened = vars(self)
        if "_store" in opened:
            self._store.engine.dispose()
        if "_tables" in opened:
            self._tables.dispose()

    def register(self, model: str, digest: str, run_id: str, tags: Mapping[str, str], at: int) -> ModelVersion:
        check_digest(digest)
        store, entities = self._store, mlflow("mlflow.entities.model_registry")
        kept = {**tags, _DIGEST: digest, _CREATED: str(at)}
        with self._moves.exclusively(), store_errors(self._url):  # so that a digest gets only one version
            self._create_model(check_id(model, "model"))
            known = store.search_model_versions(
                f"name = '{model}' AND tags.`{_DIGEST}` = '{digest}'", max_results=_PAGE
            )
            made = (
                known[0]
                if known
                else store.create_model_version(
                    model,
                    source=f"bundle:{digest}",
                    run_id=run_id,
                    tags=[entities.ModelVersionTag(key, value) for key, value in kept.items()],
                )
            )
        return self._version(made, self._moves.current(model))

    def get(self, model: str, reference: str) -> ModelVersion:
        return self._get(model, reference)

    def _get(self, model: str, reference: str, within: sa.Connection | None = None) -> ModelVersion:
        aliases = self._moves.current(check_id(model, "model"), within)
        number = reference if reference.isdigit() else aliases.get((model, reference))
        if number is None:
            raise UnknownVersion(model, reference)
        try:
            with store_errors(self._url):
                return self._version(self._store.get_model_version(model, number), aliases)
        except NotFound:
            raise UnknownVersion(model, reference) from None

    def all(self, model: str | None = None) -> list[ModelVersion]:
        aliases = self._moves.current(None if model is None else check_id(model, "model"))
        with store_errors(self._url):
            found = [self._version(row, aliases) for row in self._rows(model)]
        return sorted(found, key=lambda version: (-version.created_at, version.model, -int(version.version)))

    def _rows(self, model: str | None) -> list[_VersionRow]:
        """Return the stored versions, without importing MLflow or creating a store."""
        if "_store" in self.__dict__:  # already open
            return _read_versions(self._store.engine, model)
        return _read_versions(self._tables, model) if is_there(self._tables) else []

    def set_alias(self, move: AliasMove, check: Check = lambda _: None) -> None:
        check_alias(move.alias)
        self.get(move.model, move.new)
        with self._moves.exclusively() as connection:
            self._get(move.model, move.new, connection)  # fails if the version was removed meanwhile
            check(connection)
            self._moves.append(move, connection)
            with store_errors(self._url):
                self._store.set_registered_model_alias(move.model, move.alias, move.new)

    def remove(self, model: str, version: str) -> None:
        with self._moves.exclusively() as connection:  # so that no alias is moved to it meanwhile
            try:
                found = self._get(model, version, connection)
            except NotFound:
                return
            if found.aliases:
                raise still_named(found)
            with store_errors(self._url):
                self._store.delete_model_version(model, version)

    def moves(self, model: str, alias: str | None = None) -> list[AliasMove]:
        return self._moves.moves(model, alias)

    def _create_model(self, model: str) -> None:
        try:
            self._store.create_registered_model(model)
        except Exception as error:
            if getattr(error, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
                raise

    def _version(self, version: Any, aliases: Mapping[tuple[str, str], str]) -> ModelVersion:
        number = str(version.version)
        return ModelVersion(
            model=version.name,
            version=number,
            digest=version.tags.get(_DIGEST, ""),
            run_id=version.run_id or "",
            created_at=int(version.tags.get(_CREATED, version.creation_timestamp * 1000)),
            tags={key: value for key, value in version.tags.items() if key not in (_DIGEST, _CREATED)},
            aliases=tuple(
                sorted(alias for (model, alias), named in aliases.items() if (model, named) == (version.name, number))
            ),
        )


class _VersionRow(NamedTuple):
    """One version, with the attributes of MLflow's entity."""

    name: str
    version: int
    run_id: str | None
    creation_timestamp: int  # milliseconds
    tags: dict[str, str]


def _read_versions(engine: sa.Engine, model: str | None) -> list[_VersionRow]:
    """Return the versions of one model or of all, unordered.

    MLflow's own search builds an object for each version, which takes 2 s for 5,000 of them.
    """
    numbered = sa.select(_versions.c.name, _versions.c.version, _versions.c.run_id, _versions.c.creation_time).where(
        _versions.c.current_stage != _DELETED
    )
    tagged = sa.select(_tags.c.name, _tags.c.version, _tags.c.key, _tags.c.value)
    if model is not None:
        numbered, tagged = numbered.where(_versions.c.name == model), tagged.where(_tags.c.name == model)
    with engine.connect() as connection:
        rows: list[Any] = list(connection.execute(numbered))
        tags: dict[tuple[str, int], dict[str, str]] = {}
        for name, version, key, value in connection.execute(tagged):
            tags.setdefault((name, version), {})[key] = value
    return [_VersionRow(name, number, run, at or 0, tags.get((name, number), {})) for name, number, run, at in rows]
