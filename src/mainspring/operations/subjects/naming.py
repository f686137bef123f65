"""Subjects by their entity and key values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mainspring.core.errors import Invalid, NotFound
from mainspring.data.model import KeyValue
from mainspring.features.keys import encode_key, typed_key
from mainspring.features.model import Entity
from mainspring.ledger.sealing import subject_named
from mainspring.project import Project


@dataclass(frozen=True)
class Subject:
    """One instance of an entity, such as a customer."""

    entity: Entity
    keys: Mapping[str, KeyValue]

    @property
    def name(self) -> str:
        """The text whose digest identifies the subject in the catalog."""
        return subject_named(self.keys)

    @property
    def former_name(self) -> str:
        """Its name in events `features.reveal` of former versions, which others with equal key values share."""
        return ", ".join(map(str, self.keys.values()))

    @property
    def encoded(self) -> bytes:
        """The key in online stores."""
        return encode_key(list(self.keys.values()))


def former_names(project: Project, text: str) -> Iterator[str]:
    """Yield the names of the subjects that events of former versions name `text`."""
    for entity in project.definitions.entities.values():
        values = text.split(", ", len(entity.keys) - 1)
        if len(values) == len(entity.keys):
            with suppress(Invalid):  # it is of another entity
                keys = typed_key(entity.keys, dict(zip(entity.keys, values, strict=True)), entity.name)
                yield Subject(entity, keys).name


def key_values(column: pa.Array[Any] | pa.ChunkedArray[Any]) -> list[Any]:
    """Return key values as `Subject` has them."""
    return (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()


def find_subjects(project: Project, entity: str, texts: Sequence[str]) -> list[Subject]:
    """Return the subjects that a command names, each once.

    Args:
        texts: Values of the entity's key, each a subject; or, of an entity with several keys, `KEY=VALUE` of one.

    Raises:
        NotFound: There is no such entity.
        Invalid: A key is missing, unknown, or of another type.
    """
    found = project.definitions.entities.get(entity)
    if found is None:
        known = ", ".join(sorted(project.definitions.entities)) or "none"
        raise NotFound(f"There is no entity {entity!r}.", fix=f"the project declares {known}.")
    if len(found.keys) == 1:
        (name,) = found.keys
        named = [{name: text} for text in texts]
    else:
        pairs = [text.partition("=") for text in texts]
        if any(not separator or name not in found.keys for name, separator, _ in pairs):
            raise Invalid(
                f"Entity {entity!r} has the keys {', '.join(found.keys)}.",
                fix=f"write {' '.join(f'{name}=VALUE' for name in found.keys)}.",
            )
        named = [{name: value for name, _, value in pairs}]
    typed = [typed_key(found.keys, each, f"Entity {entity!r}") for each in named]
    return list({each.encoded: each for each in (Subject(found, keys) for keys in typed)}.values())
