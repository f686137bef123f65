"""Runs, bundles, versions and aliases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from mainspring.core.errors import Conflict, Invalid, NotFound
from mainspring.core.ids import check_id
from mainspring.core.schema import DType
from mainspring.stats.curves import Curve


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
    at: int  # UTC epoch microseconds, by the machine's clock
    domain_at: int | None = None  # the same by the project's clock, which dates predictions; None where not recorded


@dataclass(frozen=True, slots=True)
class Approval:
    """Somebody's word that a version may go live."""

    model: str
    version: str
    digest: str
    approver: str
    reason: str
    at: int  # UTC epoch microseconds


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """An approval that somebody took back: it counts no more, and stays on record."""

    approval: Approval
    actor: str
    reason: str
    at: int  # UTC epoch microseconds


@dataclass(frozen=True, slots=True)
class Deletion:
    """A version that is to go when its time of grace is over."""

    model: str
    version: str
    digest: str
    actor: str
    reason: str
    at: int  # UTC epoch microseconds, when it was marked
    claimed: bool = False  # a collection is carrying it out


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """Another installation's public key, whose bundles may be imported."""

    public: bytes  # Ed25519, 32 bytes
    name: str
    actor: str
    at: int  # UTC epoch microseconds


class UnknownVersion(NotFound):
    """No version of the model has that number, or that alias."""

    def __init__(self, model: str, reference: str) -> None:
        sign = ":" if reference.isdigit() else "@"
        super().__init__(
            f"There is no {model}{sign}{reference}.", fix=f"`mainspring models list {model}` lists what there is."
        )


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


def still_named(version: ModelVersion) -> Conflict:
    """What to raise when a version cannot go because aliases name it."""
    return Conflict(
        f"The version {version.model}:{version.version} is named by {', '.join(version.aliases)}.",
        fix="let the alias name another version first, as `mainspring promote` does.",
    )


def _version(version: str | None) -> str:
    return "no version" if version is None else f"version {version}"


class Input(msgspec.Struct, frozen=True):
    """One input of a model: a feature's full name and its type. `categories` are those seen in training (strings).

    XGBoost and LightGBM take numbers: a text enters their models as its place in `categories`, and as NaN where it is
    not among them.
    """

    name: str
    dtype: DType
    categories: tuple[str, ...] = ()


class TensorSpec(msgspec.Struct, frozen=True):
    """A tensor that a model takes or gives, in the words of the Open Inference Protocol.

    `shape` begins with -1, the rows of a batch; another -1 is a dimension that may differ from request to request.
    """

    name: str
    datatype: str  # BOOL, UINT8 to INT64, FP16, FP32, FP64, BYTES
    shape: tuple[int, ...]


class Code(msgspec.Struct, frozen=True):
    """A function of the project's own code, and the SHA-256 of the source that it had when it was registered."""

    function: str  # module:function
    source: str


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a graph of models: another bundle, or a way to combine answers.

    `inputs` says where each of its inputs comes from: the name of an input of the graph, or `node.output`.
    """

    name: str
    inputs: dict[str, str]
    bundle: str = ""  # a digest
    combine: str = ""  # mean, weighted, vote
    weights: tuple[float, ...] = ()  # of `weighted`, in the order of `inputs`


class Graph(msgspec.Struct, frozen=True):
    """Models that feed one another. `outputs` says which `node.output` each output of the whole is."""

    nodes: tuple[Node, ...]
    outputs: dict[str, str]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a bundle is: the SHA-256 of each of its files, and where it came from. Its own SHA-256 is its digest.

    A model takes columns (`inputs`, one value a row each) or tensors (`tensors` and `output_tensors`), never both.
    """

    format: int = 1
    model: str
    task: str  # binary, multiclass, regression; of tensors: tensors
    flavour: str  # what runs it: see `registry.flavours`
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]  # "probability" for binary, "value" for regression or its several labels, class names
    tensors: tuple[TensorSpec, ...] = ()
    output_tensors: tuple[TensorSpec, ...] = ()
    code: Code | None = None  # of the flavour function
    graph: Graph | None = None  # of the flavour graph
    curve: Curve | None = None  # behind what a framework runs itself; in an ONNX file it is part of the graph
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
    """Return the labels of a model that has several, in the order of its outputs; of any other none."""
    return manifest.outputs if manifest.task == "regression" and len(manifest.outputs) > 1 else ()


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model as files, verified: nothing of it can run code.

    Files: the model as its flavour names it (`model.onnx`), `features.json` (feature definitions), `reference.json`
    (reference statistics), `golden.json` (rows with the answers they must give), `holdout.parquet` (held-out rows with
    labels).

    `looked_through` is the digest as which the inside of the model's file was checked in this process; of a bundle with
    another digest, so with any other byte, it says nothing.
    """

    digest: str
    manifest: Manifest
    files: Mapping[str, bytes]
    signature: bytes = b""  # Ed25519, of the manifest's canonical JSON
    looked_through: str = field(default="", compare=False, repr=False)
