"""Declarations of feature functions, and the two forms that their outputs take: a derived source, request features."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace

import msgspec

from mainspring.core.expr import Column, Node
from mainspring.core.schema import DType
from mainspring.data.model import Retention, Source
from mainspring.features.functions.code import Code
from mainspring.features.model import RequestFeatures

# Columns of a derived table beside the keys, the times and the outputs.
DERIVED_FROM = "derived_from"  # int64: `_seq` of the row that it was computed from
FAILURE = "derivation_error"  # string: why the function failed for the row; null if it did not
COST_US = "derivation_us"  # float: the row's share of the duration of the call, µs
OWN_COLUMNS = (DERIVED_FROM, FAILURE, COST_US)
NULL, QUARANTINE, FAIL = "null", "quarantine", "fail"
ENCODER = "encoder"  # engine of embeddings, whose code is the declaration of their encoder


class FeatureFunction(msgspec.Struct, frozen=True):
    """A Python function over columns, and how it is called.

    Attributes:
        columns: Names and types of its inputs, passed by keyword as Arrow arrays of shape (rows,).
        returns: Names and types of its outputs, each of shape (rows,).
        vectors: Output -> length, for outputs of shape (rows, length); each number is a feature `NAME_0`, `NAME_1`, ...
        on_error: What becomes of a row for which it fails: `null`, `quarantine` or `fail`.
        timeout_us: Maximum duration of one call, µs.
        batch_rows: Maximum rows of one call.
        version: A text of the author, part of the version, for all that the code does not say: files, models, packages.
    """

    name: str
    code: Code
    columns: dict[str, DType]
    returns: dict[str, DType]
    vectors: dict[str, int] = {}
    on_error: str = NULL
    timeout_us: int = 600_000_000
    batch_rows: int = 1024
    version: str = ""
    engine: str = ""  # where it is computed at ingestion: `ray`, `encoder`, or in a process of this machine

    @property
    def outputs(self) -> dict[str, DType]:
        """Names and types of the features, vectors spread."""
        spread = {f"{name}_{n}": DType.Float32 for name, length in self.vectors.items() for n in range(length)}
        return {**self.returns, **spread}

    @property
    def digest(self) -> str:
        """Digest of all that decides the outputs, 12 hexadecimal digits; the time limit and the engine do not."""
        content = [self.code, sorted(self.columns.items()), sorted(self.outputs.items()), self.version, self.on_error]
        return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()[:12]


@dataclass(frozen=True, eq=False)
class DerivedSource(Source):
    """The outputs of a function for each row of another source, as a source: a fact becomes true and known with the
    row it was computed from.

    Args:
        parent: The source whose rows the function is computed for.
        function: The function.
    """

    _: KW_ONLY
    parent: Source
    function: FeatureFunction

    @property
    def retentions(self) -> tuple[Retention, ...]:
        """Those of the source it is computed from; of columns, for personal values that they name, or that are not
        columns there.
        """
        kept: Source = self
        while isinstance(kept, DerivedSource):
            kept = kept.parent
        found = []
        for each in kept.retentions:
            columns = [name for name in self.pii if name in each.columns or name not in kept.columns]
            if columns or not each.columns:
                found.append(replace(each, columns=columns if each.columns else ()))
        return tuple(found)


@dataclass(frozen=True, eq=False)
class RequestFunction(RequestFeatures):
    """Features that a function computes from the fields of a request.

    Its expressions are columns `NAME()`, which stand for the outputs: they are computed first.

    Args:
        source: The source of the observations, which has the fields; not part of a bundle.
    """

    _: KW_ONLY
    function: FeatureFunction
    source: Source | None = None
    features: Mapping[str, Node] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", {name: Column(placeholder(name)) for name in self.function.outputs})

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(sorted(self.function.columns))


def placeholder(output: str) -> str:
    """Return the name of an output among the fields of a request, which no field can have."""
    return f"{output}()"
