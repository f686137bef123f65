"""Plan of a batch run: the version, the input, and the columns that the model needs of it."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.core.errors import Conflict, Invalid, InvalidData
from mainspring.core.ids import new_id
from mainspring.core.time import parse_instant
from mainspring.delivery.routing import version_of
from mainspring.features import definitions
from mainspring.features.model import RequestFeatures, views_of
from mainspring.operations.batch.folder import FolderOutput
from mainspring.operations.batch.inputs import Given, Reader
from mainspring.operations.batch.table import TableOutput
from mainspring.operations.batch.values import Output, Request
from mainspring.operations.models.curating import find
from mainspring.operations.promote import gated
from mainspring.project import Project
from mainspring.registry.bundles import FEATURES, GOLDEN
from mainspring.registry.model import Bundle, ModelVersion
from mainspring.serving.batch.columns import check_column
from mainspring.serving.batch.plan import CHUNK_ROWS, NOW, Plan
from mainspring.serving.batch.scoring import CALL_ROWS, OWN
from mainspring.serving.plane.executor import arrays

if TYPE_CHECKING:
    from mainspring.core.schema import Schema
    from mainspring.features.model import FeatureGroup
    from mainspring.serving.ports import Executor

_CALL_S = 0.25  # longest call of a slow model
_SEED_BITS = 50


@dataclass(frozen=True)
class Joined:
    """Features of a bundle that are read by key.

    Attributes:
        schema: Types of the observations' columns.
        keys: Key columns of the views' entities.
        fields: Request fields that features are computed from.
    """

    groups: list[FeatureGroup]
    schema: Schema
    keys: tuple[str, ...]
    fields: tuple[str, ...]

    @property
    def needed(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.keys, *self.fields)))


def joined_of(bundle: Bundle) -> Joined | None:
    """Return the features that a bundle's model reads; `None` for a model without definitions of features."""
    if FEATURES not in bundle.files:
        return None
    groups, observations = definitions.load(bundle.files[FEATURES])
    keys = dict.fromkeys(key for view in views_of(groups) for key in view.entity.keys)
    fields = dict.fromkeys(field for group in groups if isinstance(group, RequestFeatures) for field in group.fields)
    return Joined(groups, observations.source.columns, tuple(keys), tuple(fields))


def output_of(project: Project, name: str, confined: Path | None = None) -> Output:
    """Return the output of a name: a folder if it has a slash, else a table of the lake.

    Raises:
        Invalid: The folder is outside of `confined`.
        Conflict: The table belongs to a source.
    """
    if "/" not in name and not name.startswith("."):
        scratch = project.settings.state / "batch"
        return TableOutput(project.lake, name, project.definitions.sources.keys(), scratch)
    folder = Path(name) if confined is None else confined / name
    if confined is not None and not folder.resolve().is_relative_to(confined.resolve()):
        raise Invalid(
            f"A job writes no file outside of the project's folder, such as {name!r}.",
            fix="name a table, or a folder below the project's.",
        )
    return FolderOutput(folder.absolute())


def version_for(project: Project, target: str) -> ModelVersion:
    """Return the live version of an endpoint, or the version `MODEL:VERSION` or `MODEL@ALIAS`.

    Raises:
        NotFound: There is none.
    """
    if ":" in target or "@" in target:
        return find(project, target)
    return version_of(project.definitions.endpoint(target), project.versions, gated=gated(project))


def make_plan(
    project: Project, request: Request, output: Output, executor: Executor, bundle: Bundle, version: ModelVersion,
    earlier: Collection[Plan], confined: Path | None,
) -> Plan | None:  # fmt: skip
    """Return the plan of a new run; `None` if nothing is new.

    Raises:
        NotFound: There is no such input.
        InvalidData: A column is missing, of a wrong type, naive, or unknown.
        Conflict: Earlier runs read another input.
    """
    if others := [plan for plan in earlier if plan.source != request.source]:
        raise Conflict(
            f"The output {output.name} has predictions for {others[0].source!r}, not {request.source!r}.",
            fix="write into another output.",
        )
    run = new_id()
    given = Reader(project.lake, output.scratch, confined).open(request.source, run, earlier if request.new else None)
    if given is None:
        return None
    now = project.clock.now()
    owner = f"the input {request.source[:100]!r}"
    joined = joined_of(bundle)
    manifest = bundle.manifest
    inputs = [*(each.name for each in manifest.tensors), *(each.name for each in manifest.inputs)]
    by_key = joined is not None and not set(inputs) <= set(given.columns.names)
    needed = joined.needed if joined is not None and by_key else tuple(inputs)
    _check_needed(needed, given, owner, joined if by_key else None, inputs)
    at, column = _instant(request.as_of, given, now, owner)
    carried = _carried(request, given, inputs if not by_key else [], executor, owner)
    names = dict.fromkeys((*needed, *([column] if column else []), *carried))
    schema = given.schema(names, owner)
    if column and getattr(schema.field(column).type, "tz", None) is None:
        raise InvalidData(
            f"Column {column!r} of {owner} is {schema.field(column).type}, which is not a time with a UTC offset.",
            fix="write instants: timestamps with a time zone.",
        )
    if not by_key:
        for wanted in manifest.inputs:
            check_column(wanted.name, schema.field(wanted.name).type, wanted.dtype, owner)
        for spec in manifest.tensors:
            check_column(spec.name, schema.field(spec.name).type, spec, owner)
    views = views_of(joined.groups) if joined is not None and by_key else []
    return Plan(
        run=run,
        target=request.target,
        model=version.model,
        version=version.version,
        digest=version.digest,
        source=request.source,
        asked_by=request.asked_by,
        as_of=request.as_of,
        at=at,
        files=tuple(file for file, _ in given.files),
        schema=schema.serialize().to_pybytes(),
        carried=carried,
        joined=by_key,
        chunk_rows=request.chunk_rows or CHUNK_ROWS,
        call_rows=_call_rows(bundle, executor),
        table=given.table,
        table_version=given.version,
        tables={view.source.name: project.lake.scan(view.source.name).version for view in views},
        seed=int.from_bytes(os.urandom(7)) >> 56 - _SEED_BITS,
        created_at=project.wall.now(),
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _check_needed(
    needed: Collection[str], given: Given, owner: str, joined: Joined | None, inputs: Collection[str]
) -> None:
    missing = [name for name in needed if name not in given.columns.names]
    if not missing:
        return
    if joined is None:
        raise InvalidData(
            f"{_capital(owner)} lacks the column {missing[0]!r}, which the model takes; it has {given.columns.names}.",
            fix=f"add {', '.join(missing)}.",
        )
    raise InvalidData(
        f"{_capital(owner)} lacks {missing}, by which features are read; it has {given.columns.names}.",
        fix=f"add the columns; or give the model's inputs themselves, such as {next(iter(inputs))!r}.",
    )


def _instant(as_of: str, given: Given, now: int, owner: str) -> tuple[int | None, str]:
    """Return the instant of all rows, or the column with each row's."""
    if as_of == NOW:
        return now, ""
    if as_of in given.columns.names:
        return None, as_of
    if as_of[:1].isdigit():
        return parse_instant(as_of), ""
    raise InvalidData(
        f"{_capital(owner)} has no column {as_of!r} to read features as of; it has {given.columns.names}.",
        fix="name a column with instants, write now, or an instant such as 2026-01-05T18:30:00Z.",
    )


def _carried(
    request: Request, given: Given, inputs: Collection[str], executor: Executor, owner: str
) -> tuple[str, ...]:
    if unknown := [name for name in request.keep if name not in given.columns.names]:
        raise InvalidData(
            f"{_capital(owner)} has no column {unknown[0]!r} to keep; it has {given.columns.names}.",
            fix="name columns of the input.",
        )
    carried = request.keep or tuple(
        name for name in given.columns.names if name not in inputs and not name.startswith("_")
    )
    clash = [name for name in carried if name in {*OWN, *executor.outputs} or name.startswith("_")]
    if clash:
        raise InvalidData(
            f"Column {clash[0]!r} of {owner} has the name of a column of the predictions.",
            fix="rename it, or name the columns to keep: --keep NAME.",
        )
    return tuple(dict.fromkeys(carried))


def _call_rows(bundle: Bundle, executor: Executor) -> int:
    """Return the number of rows of a call: fewer for a slow model, whose calls would reach their time limit."""
    if GOLDEN not in bundle.files:
        return CALL_ROWS
    given: dict[str, Any] = msgspec.json.decode(bundle.files[GOLDEN])["inputs"]
    rows = len(next(iter(given.values())))
    inputs = arrays(given, executor, bundle.manifest, rows)
    begun = time.perf_counter()
    executor.predict(inputs, rows)
    return max(1, min(CALL_ROWS, int(_CALL_S * rows / max(1e-9, time.perf_counter() - begun))))
