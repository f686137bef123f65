"""Runs, bundles, versions and aliases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

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


class Input(msgspec.Struct, frozen=True):
    """One input of a model: a feature's full name and its type. `categories` are those seen in training (strings)."""

    name: str
    dtype: DType
    categories: tuple[str, ...] = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle is: the SHA-256 of each of its files, and where it came from. Its own SHA-256 is its digest."""

    format: int
    model: str
    task: str  # binary, multiclass, regression
    flavour: str
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]  # "probability" for binary, "value" for regression, class names for multiclass
    files: dict[str, str]  # file name -> SHA-256, hex
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
