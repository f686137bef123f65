"""Results of calls: metadata of an endpoint, and predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

from mainspring.core.errors import Invalid

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Prediction:
    """The prediction for one row.

    Args:
        id: Its id in the prediction log, the console and labels; empty if the server has no log.
        version: The version of the model that answered.
        values: Output -> the model's value; a list if an output has several numbers per row.
        statuses: Stored feature -> `PRESENT`, `NULL`, `EXPIRED` or `MISSING`; empty unless requested.
        unusual: The feature by which the row is unlike the training rows, empty if it is not, or if the endpoint does
            not name such rows.
    """

    id: str
    version: str
    values: Mapping[str, Any]
    statuses: Mapping[str, str]
    unusual: str = ""

    @property
    def value(self) -> Any:
        """The prediction of a model with one output.

        Raises:
            Invalid: The model has several outputs.
        """
        return _only(self.values)


@dataclass(frozen=True, slots=True)
class Predictions(Sequence[Prediction]):
    """The predictions for the rows of a request, in their order.

    Args:
        outputs: Output -> one value per row.
        statuses: Stored feature -> one status per row.
        unusual: One feature per row, see `Prediction`; empty if the endpoint does not name such rows.
    """

    endpoint: str
    version: str
    ids: tuple[str, ...]
    outputs: Mapping[str, Sequence[Any]]
    statuses: Mapping[str, Sequence[str]] = field(default_factory=dict)
    unusual: tuple[str, ...] = ()

    @property
    def values(self) -> list[Any]:
        """One value per row, of a model with one output.

        Raises:
            Invalid: The model has several outputs.
        """
        return list(_only(self.outputs))

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, place: int) -> Prediction: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Prediction]: ...
    def __getitem__(self, place: int | slice) -> Prediction | Sequence[Prediction]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        return Prediction(
            id=self.ids[place],
            version=self.version,
            values={name: column[place] for name, column in self.outputs.items()},
            statuses={name: column[place] for name, column in self.statuses.items()},
            unusual=self.unusual[place] if self.unusual else "",
        )


@dataclass(frozen=True, slots=True)
class Inference:
    """A reply to `infer`: arrays of the shapes and types that the model gives."""

    endpoint: str
    version: str
    outputs: Mapping[str, np.ndarray[Any, Any]]
    id: str | None
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output. `datatype` is the protocol's; -1 in `shape` means any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Inputs and outputs of an endpoint.

    Args:
        inputs: Inputs of a full request: every feature, or the model's tensors.
        keyed: Inputs of a request by entity key; empty if the endpoint accepts only full requests.
        optional: Those of `keyed` that may be left out.
        parameters: All other metadata from the server.
    """

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    keyed: tuple[TensorInfo, ...]
    optional: frozenset[str]
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Name, version and extensions of the server."""

    name: str
    version: str
    extensions: frozenset[str]


def _only(values: Mapping[str, Any]) -> Any:
    if len(values) != 1:
        raise Invalid(
            f"The model has the outputs {', '.join(values)}.", fix="take one by name, of `values` or `outputs`."
        )
    return next(iter(values.values()))
