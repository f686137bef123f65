"""A prediction as it is logged, and the columns it has in the lake."""

from __future__ import annotations

import msgspec

PREDICTIONS = "predictions"  # the lake table that compaction fills

Value = bool | int | float | str | None


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """One row's prediction and everything that made it."""

    id: str
    endpoint: str
    model: str
    version: str
    digest: str  # of the bundle
    at: int  # UTC epoch microseconds, by the process's clock
    keys: dict[str, Value]  # entity keys, empty for full inputs
    request: dict[str, Value]  # the request's other fields, as sent
    features: dict[str, Value]  # the model's inputs, by full name
    statuses: dict[str, str]  # of stored features, by full name
    outputs: dict[str, Value | list[float]]
    latency_us: int
    principal: str
