"""Values of a meeting of machines: what a machine tells of itself, and what must be alike on all."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from mainspring.core.errors import Conflict

MOST = 16 << 20  # bytes of a line
_SHOWN = 10  # differences


class Alike(msgspec.Struct, frozen=True):
    """Everything that must be equal on all machines, or they would train different models.

    Args:
        files: SHA-256 of each of the project's files.
        definitions: SHA-256 of the model's features and observations.
        versions: Of Python and of the packages that compute.
    """

    files: Mapping[str, str]
    definitions: str
    versions: Mapping[str, str]


class Hello(msgspec.Struct, frozen=True):
    """A machine that wants to take part: its number from 1, its name, the processes that it starts."""

    machine: int
    host: str
    processes: int
    alike: Alike


class Welcome(msgspec.Struct, frozen=True):
    """Answer to a `Hello`: the training, or why the machine cannot take part."""

    refused: str = ""
    taken: str = ""  # name of the machine that has this number by now
    run: str = ""
    request: str = ""  # of the job; each machine puts its own folders into it
    tables: Mapping[str, list[Any]] = {}  # version and SHA-256 of the rows' files of each table of the snapshot
    mark: str = ""  # content of a file beside the checkpoints


@dataclass(frozen=True, slots=True)
class Announced:
    """A machine as it is announced in the catalog.

    Args:
        address: `host:port` of machine 0; empty for others.
        certificate: In PEM.
    """

    number: int
    host: str
    address: str
    certificate: str

    @property
    def der(self) -> bytes:
        return ssl.PEM_cert_to_DER_cert(self.certificate)


def differences(one: Alike, other: Alike) -> list[str]:
    """Return what differs between two machines, for people; empty if nothing does."""
    files = [f"the file {name}" for name in _unequal(one.files, other.files)]
    versions = [
        f"{name} ({one.versions.get(name, 'none')} and {other.versions.get(name, 'none')})"
        for name in _unequal(one.versions, other.versions)
    ]
    definitions = ["the definitions"] if one.definitions != other.definitions and not files else []
    return [*files, *versions, *definitions]


def differing_tables(one: Mapping[str, list[Any]], other: Mapping[str, list[Any]]) -> list[str]:
    """Return the names of tables whose pinned rows are not the same."""
    return [f"the table {name}" for name in _unequal(one, other)]


def listed(found: Iterable[str]) -> str:
    """Return differences as text, the first ones if they are many."""
    every = list(found)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more


def disagree(machine: str, found: Iterable[str]) -> Conflict:
    """Return the error of a machine that would train something else."""
    return Conflict(
        f"{machine} would not train what machine 0 does; these differ: {listed(found)}.",
        fix="give all machines the same files, packages and stores, and start them again.",
    )


def _unequal(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
