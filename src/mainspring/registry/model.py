"""Runs, bundles, versions and aliases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from mainspring.core.errors import Conflict, Invalid
from mainspring.core.ids import check_id
from mainspring.core.schema import DType


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One training run as the tracking store has it."""

    id: str
    model: str
    status: str  # RUNNING, FINISHED, FAILED, KILLED
    started_at: int  # UTC epoch microseconds
    ended_at: int | None
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One registered version: a name and number for a bundle's digest."""

    model: str
    version: str  # "1", "2", ...
    digest: str
    run_id: str
    created_at: int  # UTC epoch microseconds
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AliasMove:
    """Who moved which alias, when and why."""

    model: str
    alias: str
    old: str | None
    new: str
    actor: str
    reason: str
    at: int


def check_alias(alias: str) -> str:
    """Return `alias` if it can name a version.

    Raises:
        Invalid: It cannot be an id, or could be taken for a version's number.
    """
    check_id(alias, "alias")
    if alias.isdigit() or alias.lower() == "latest" or (alias[:1] in "vV" and alias[1:].isdigit()):
        raise Invalid(f"The alias {alias!r} could be taken for a version.", fix="use a word, such as champion.")
    return alias


def alias_conflict(move: AliasMove, present: str | None) -> Conflict:
    """What to raise when `move.old` is not what the alias names."""
    return Conflict(
        f"The alias {move.model}@{move.alias} names {_version(present)} by now, not {_version(move.old)}; "
        f"it was not moved to {_version(move.new)}.",
        fix="look at `mainspring status` and run the command again.",
    )


def _version(version: str | None) -> str:
    return "no version" if version is None else f"version {version}"


class Input(msgspec.Struct, frozen=True):
    """One input of a model: a feature's full name and its type. `categories` are those seen in training (strings)."""

    name: str
    dtype: DType
    categories: tuple[str, ...] = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a bundle is: the SHA-256 of each of its files, and where it came from. Its own SHA-256 is its digest."""

    format: int = 1
    model: str
    task: str  # binary, multiclass, regression
    flavour: str
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]  # "probability" for binary, "value" for regression, class names for multiclass
    files: dict[str, str] = {}  # file name -> SHA-256, hex
    run_id: str
    dataset_commit: str
    features_digest: str
    code_version: str
    created_at: int
    tolerance: float = 1e-5
    metrics: dict[str, float] = {}
    extra: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model as files, verified: nothing of it can run code.

    Files: `model.onnx`, `features.json` (feature definitions), `reference.json` (reference statistics),
    `golden.json` (rows with the answers they must give), `holdout.parquet` (held-out rows with labels).
    """

    digest: str
    manifest: Manifest
    files: Mapping[str, bytes]
    signature: bytes = b""  # Ed25519, of the manifest's canonical JSON
