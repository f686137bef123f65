"""Runs, bundles, versions and aliases."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from mainspring.core.errors import Conflict, Corrupt, Invalid, NotFound
from mainspring.core.ids import check_id
from mainspring.core.schema import DType
from mainspring.stats.curves import Curve

FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One training run, as stored by the tracking store."""

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
    """One registered version: a model name and number for a bundle's digest."""

    model: str
    version: str  # "1", "2", ...
    digest: str
    run_id: str
    created_at: int  # UTC epoch microseconds
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AliasMove:
    """One move of an alias: old and new version, actor, time and reason."""

    model: str
    alias: str
    old: str | None
    new: str
    actor: str
    reason: str
    at: int  # UTC epoch microseconds, by the machine's clock
    domain_at: int | None = None  # time by the project's clock, which dates predictions; None if not recorded


@dataclass(frozen=True, slots=True)
class Approval:
    """One person's approval of a version for going live."""

    model: str
    version: str
    digest: str
    approver: str
    reason: str
    at: int  # UTC epoch microseconds


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A withdrawn approval: no longer counted, but kept on record."""

    approval: Approval
    actor: str
    reason: str
    at: int  # UTC epoch microseconds


@dataclass(frozen=True, slots=True)
class Waiver:
    """A person's permission to let a version go live although it fails a gate.

    `gate` is the gate as it is written; `signature` is the project's key's, of `content`. A waiver that somebody ended
    before `until` says who and when.
    """

    model: str
    version: str
    digest: str
    gate: str
    actor: str
    reason: str
    at: int  # UTC epoch microseconds
    until: int  # UTC epoch microseconds
    signature: bytes = b""
    ended_at: int | None = None
    ended_by: str = ""

    def content(self) -> bytes:
        """Return what is signed: canonical JSON of all but the signature and the end."""
        names = ("model", "version", "digest", "gate", "actor", "reason", "at", "until")
        return msgspec.json.encode({name: getattr(self, name) for name in names}, order="sorted")


@dataclass(frozen=True, slots=True)
class Deletion:
    """A version marked for deletion after the grace period."""

    model: str
    version: str
    digest: str
    actor: str
    reason: str
    at: int  # UTC epoch microseconds, when it was marked
    claimed: bool = False  # a garbage collection is carrying it out


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """Another installation's public key, whose bundles may be imported."""

    public: bytes  # Ed25519, 32 bytes
    name: str
    actor: str
    at: int  # UTC epoch microseconds


class UnknownVersion(NotFound):
    """Error: the model has no version with that number or alias."""

    def __init__(self, model: str, reference: str) -> None:
        sign = ":" if reference.isdigit() else "@"
        super().__init__(
            f"There is no {model}{sign}{reference}.", fix=f"`mainspring models list {model}` lists the versions."
        )


def check_alias(alias: str) -> str:
    """Return `alias` if it is a valid name for a version.

    Raises:
        Invalid: The alias is not an id, or could be mistaken for a version number.
    """
    check_id(alias, "alias")
    if alias.isdigit() or alias.lower() == "latest" or (alias[:1] in "vV" and alias[1:].isdigit()):
        raise Invalid(f"The alias {alias!r} could be mistaken for a version.", fix="use a word, such as champion.")
    return alias


def alias_conflict(move: AliasMove, present: str | None) -> Conflict:
    """Return the `Conflict` for a move whose `old` is not the version that the alias names."""
    return Conflict(
        f"The alias {move.model}@{move.alias} now names {_version(present)}, not {_version(move.old)}; it was not "
        f"moved to {_version(move.new)}.",
        fix="check `mainspring status` and run the command again.",
    )


def still_named(version: ModelVersion) -> Conflict:
    """Return the `Conflict` that refuses to delete a version which aliases still name."""
    return Conflict(
        f"The version {version.model}:{version.version} has the aliases {', '.join(version.aliases)}.",
        fix="move the alias to another version first, as `mainspring promote` does.",
    )


def _version(version: str | None) -> str:
    return "no version" if version is None else f"version {version}"


class Input(msgspec.Struct, frozen=True):
    """One input of a model: a feature's full name and its type. `categories` are the strings seen in training.

    XGBoost and LightGBM take numbers: a string is passed to them as its position in `categories`, or as NaN if it is
    not among them.
    """

    name: str
    dtype: DType
    categories: tuple[str, ...] = ()


class TensorSpec(msgspec.Struct, frozen=True):
    """An input or output tensor of a model, in the terms of the Open Inference Protocol.

    `shape` begins with -1, the batch dimension; any other -1 is a dimension that may differ between requests.
    """

    name: str
    datatype: str  # BOOL, UINT8 to INT64, FP16, FP32, FP64, BYTES
    shape: tuple[int, ...]


class Code(msgspec.Struct, frozen=True):
    """A function of the project's own code, and the SHA-256 of its source at registration."""

    function: str  # module:function
    source: str


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One node of a model graph: another bundle, or an operation that combines predictions.

    `inputs` maps each of its inputs to a source: the name of a graph input, or `node.output`.
    """

    name: str
    inputs: dict[str, str]
    bundle: str = ""  # a digest
    combine: str = ""  # mean, weighted, vote
    weights: tuple[float, ...] = ()  # of `weighted`, in the order of `inputs`


class Graph(msgspec.Struct, frozen=True):
    """A graph of models. `outputs` maps each output of the graph to a `node.output`."""

    nodes: tuple[Node, ...]
    outputs: dict[str, str]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Manifest of a bundle: the SHA-256 digest of each file, and the bundle's source. Its own SHA-256 is the bundle's
    digest.

    A model takes columns (`inputs`, one value per row each) or tensors (`tensors` and `output_tensors`), never both.
    """

    format: int = 1
    model: str
    task: str  # binary, multiclass, regression; of tensors: tensors
    flavour: str  # the runtime: see `registry.flavours`
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]  # "probability" for binary, "value" for regression or its several labels, class names
    tensors: tuple[TensorSpec, ...] = ()
    output_tensors: tuple[TensorSpec, ...] = ()
    code: Code | None = None  # of the flavour function
    graph: Graph | None = None  # of the flavour graph
    curve: Curve | None = None  # calibration; an ONNX file has it in its graph
    files: dict[str, str] = {}  # file name -> SHA-256, hex
    run_id: str
    dataset_commit: str
    features_digest: str
    code_version: str
    created_at: int
    tolerance: float = 1e-5
    metrics: dict[str, float] = {}
    extra: dict[str, Any] = {}


def several_labels(manifest: Manifest) -> tuple[str, ...]:
    """Return the labels of a multi-output regression, in the order of its outputs; empty for any other model."""
    return manifest.outputs if manifest.task == "regression" and len(manifest.outputs) > 1 else ()


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified model as files, none of which can run code.

    Files: the model under its flavour's name (`model.onnx`), `features.json` (feature definitions), `reference.json`
    (reference statistics), `golden.json` (rows with their expected predictions), `holdout.parquet` (held-out rows with
    labels), `tokenizer.json` (of an encoder of texts).

    `looked_through` is the digest under which this process has checked the content of the model's file; it says nothing
    about a bundle with another digest.
    """

    digest: str
    manifest: Manifest
    files: Mapping[str, bytes]
    signature: bytes = b""  # Ed25519, of the manifest's canonical JSON
    looked_through: str = field(default="", compare=False, repr=False)


def check_code(code: Code, owner: str = "") -> None:
    """Raise if `code` is not a function written as `module:function` with a SHA-256 of its source.

    Raises:
        Corrupt: The name or the digest is malformed.
    """
    if not FUNCTION.fullmatch(code.function):
        raise Corrupt(f"The function {code.function[:80]!r}{owner} does not have the form module:function.")
    if not _DIGEST.fullmatch(code.source):
        raise Corrupt(f"The function {code.function[:80]!r}{owner} has no SHA-256 of its source.")
