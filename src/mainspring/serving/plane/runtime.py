"""A bundle made ready to answer: its session warm, its golden rows answered, its inputs known."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from mainspring.core.errors import Corrupt
from mainspring.features import definitions
from mainspring.features.describe.personal import personal_names
from mainspring.features.functions.process import FunctionProcess
from mainspring.features.model import FeatureGroup, Observations, RequestFeatures, views_of
from mainspring.features.online import OnlineReader
from mainspring.features.ports import OnlineStore
from mainspring.registry.bundles import FEATURES, GOLDEN, REFERENCE
from mainspring.registry.model import Bundle, Manifest, TensorSpec
from mainspring.serving.batching.estimates import Cost
from mainspring.serving.devices.device import CPU
from mainspring.serving.plane.golden import warm_up
from mainspring.serving.ports import Executor, Loader
from mainspring.serving.protocol.schema import DATATYPES, Field, RequestSchema, TensorSchema
from mainspring.serving.protocol.tensor import check_specs
from mainspring.serving.residency.residency import Residency
from mainspring.stats.unusual import Scoring

_log = logging.getLogger(__name__)

MAX_ROWS = 1024  # of one request, and of one batch


@dataclass(frozen=True, slots=True)
class Runtime:
    """One bundle, shared by every endpoint that serves it."""

    digest: str
    manifest: Manifest
    executor: Executor
    schema: RequestSchema | TensorSchema
    inputs: tuple[TensorSpec, ...]  # of a full request; a feature has the shape (-1,)
    outputs: Mapping[str, TensorSpec]
    cost: Cost  # of a batch, as the warm-up measured it
    reader: OnlineReader | None = None  # `None`: a model of tensors, which has no features
    key_names: tuple[str, ...] = ()
    personal: frozenset[str] = frozenset()  # keys, fields and features that identify a person
    stored: bool = False  # whether requests by key need the online store
    remote: bool = False  # whether a read of features waits for another machine or process
    functions: tuple[FunctionProcess, ...] = ()  # feature functions that it waits for
    halves: tuple[str, ...] = ()  # the outputs that are FP16
    scoring: Scoring | None = None  # of rows from the training rows
    residency: Residency | None = None  # where the model may be out of memory; its executor is a `ResidentExecutor`
    device: str = CPU  # as its endpoint asks
    runs_on: str = CPU
    fallback: str = ""  # why it runs on the processor all the same
    nodes: Mapping[str, int] | None = None  # of its graph, by provider; on a device, where the runtime tells

    @property
    def tensors(self) -> bool:
        """True if the model takes tensors, not features."""
        return self.reader is None


def load(bundle: Bundle, online: OnlineStore, executors: Loader) -> Runtime:
    """Return the bundle, ready. `executors` makes the executor of its model.

    Raises:
        Corrupt: It does not load, does not answer its golden rows, or lacks or garbles another file it needs.
    """
    manifest = bundle.manifest
    for name in (GOLDEN,) if manifest.tensors else (FEATURES, GOLDEN):
        if name not in bundle.files:
            raise Corrupt(f"The bundle {bundle.digest[:12]} has no {name}, so it cannot be served.")
    check_specs((*manifest.tensors, *manifest.output_tensors), f"bundle {bundle.digest[:12]}")
    executor = executors(bundle)
    try:
        return _ready(bundle, online, executor)
    except BaseException:
        executor.close()
        raise


def load_resident(bundle: Bundle, online: OnlineStore, executors: Loader, residency: Residency) -> Runtime:
    """Return the bundle, ready, with a model that may leave the memory; errors as of `load` and `Residency.first`."""
    made = residency.first(bundle.digest, file_bytes(bundle), executors, lambda loader: load(bundle, online, loader))
    return replace(made, residency=residency)


def file_bytes(bundle: Bundle) -> int:
    """Return the size of a model's files."""
    return sum(len(content) for name, content in bundle.files.items() if name not in (FEATURES, GOLDEN, REFERENCE))


def _ready(bundle: Bundle, online: OnlineStore, executor: Executor) -> Runtime:
    manifest, cost = bundle.manifest, warm_up(bundle, executor)
    outputs = dict(executor.outputs)
    if manifest.tensors:
        nullable = [spec.name for spec in manifest.tensors if executor.nullable(spec.name)]
        schema = TensorSchema(manifest.tensors, max_rows=MAX_ROWS, nullable=nullable)
        halves = tuple(name for name, spec in outputs.items() if spec.datatype == "FP16")
        return Runtime(bundle.digest, manifest, executor, schema, manifest.tensors, outputs, cost, halves=halves)
    groups, observations = definitions.load(bundle.files[FEATURES])
    stored = bool(views_of(groups))
    reader = OnlineReader(groups, online, schema=observations.source.columns)
    reader.start()
    features = [Field(each.name, each.dtype, nullable=executor.nullable(each.name)) for each in manifest.inputs]
    return Runtime(
        bundle.digest,
        manifest,
        executor,
        RequestSchema(features, keyed_fields(groups, observations), max_rows=MAX_ROWS),
        tuple(TensorSpec(field.name, DATATYPES[field.dtype], (-1,)) for field in features),
        outputs,
        cost,
        reader=reader,
        key_names=tuple(name for entity in observations.keys for name in entity.keys),
        personal=personal_names(groups, observations),
        stored=stored,
        remote=(stored and online.remote) or bool(reader.functions),
        functions=reader.functions,
        scoring=_scoring(bundle),
    )


class _Profile(msgspec.Struct):
    """The part of a bundle's reference by which rows are screened."""

    scoring: Scoring | None = None


def _scoring(bundle: Bundle) -> Scoring | None:
    try:
        return msgspec.json.decode(bundle.files.get(REFERENCE, b"{}"), type=_Profile).scoring
    except msgspec.DecodeError as error:  # the model answers without; its rows count as unchecked
        _log.warning("Rows of the bundle %s cannot be checked: %s", bundle.digest[:12], error)
        return None


def keyed_fields(groups: Sequence[FeatureGroup], observations: Observations) -> list[Field]:
    """Return what a request by key brings: all keys, also those that no view reads, because labels are joined by them,
    and the fields that request features are computed from. The source's other columns may be sent, and are logged."""
    required = {name for entity in observations.keys for name in entity.keys}
    for view in views_of(groups):
        required.update(view.entity.keys)
    for group in groups:
        if isinstance(group, RequestFeatures):
            required.update(group.fields)
    return [Field(name, dtype, required=name in required) for name, dtype in observations.source.columns.items()]
