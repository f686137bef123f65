"""Requests and responses, whichever protocol carries them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec

from mainspring.serving.protocol.tensor import Tensor


class Parameters(msgspec.Struct, frozen=True):
    """Known parameters of a request; others are ignored, as the protocol wants.

    `timeout` is in microseconds and shortens the endpoint's deadline; priority 1 is served first, 0 is the default (and
    the last), as Triton has it.
    """

    feature_statuses: bool = False
    priority: Annotated[int, msgspec.Meta(ge=0, le=2**32)] = 0
    timeout: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0


DEFAULTS = Parameters()


class Asked(msgspec.Struct, eq=False):
    """One `infer`. `outputs` are names; without any, all outputs are wanted."""

    id: str | None
    inputs: Sequence[Tensor]
    outputs: Sequence[str] = ()
    parameters: Parameters = DEFAULTS


class Outside(NamedTuple):
    """A call of another server for a request. Instants are monotonic, µs.

    Attributes:
        failed: Kind of its failure, empty without one.
    """

    name: str
    begun: int
    ended: int
    attributes: Mapping[str, str | int | float]
    failed: str = ""


class Answered(msgspec.Struct, eq=False):
    """The reply to one `infer`. The outputs' data are arrays of shape (rows, ...).

    `parameters` has `prediction_ids`, one a row, where they were asked for `feature_statuses`, feature -> a word a row,
    where the endpoint names unusual rows `unusual`, one a row, and where the answer was computed for another request
    `cached`. `ran` and `encoded` are for traces: the execution as
    `plane.tracing.Ran`, which the protocol does not look into, and when the reply was encoded, from and to, monotonic,
    ns.
    """

    model_name: str
    model_version: str
    outputs: list[Tensor]
    parameters: Mapping[str, Any] = {}
    id: str | None = None
    ran: object = None
    encoded: tuple[int, int] | None = None
