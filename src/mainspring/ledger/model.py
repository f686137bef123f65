"""Logged predictions and selections of them, the batches in which serving passes them, and a logging policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from mainspring.core.errors import Invalid

PREDICTIONS = "predictions"  # lake table that compaction fills
FAILURES = "predictions__failures"  # its table of failures, which no reader of predictions meets
EXPLANATIONS = "predictions__explanations"  # its table of explanations
REQUESTED, SAMPLED = "requested", "sampled"  # origins of explanations
FALLBACK = "(fallback)"  # output of a prediction that a fallback answered: its outputs as JSON
STREAMED = "(streamed)"  # output of a prediction that was answered in parts: these, and how it ended, as JSON
ANY_KEY = ""  # name of a condition of a `Selection` that any entity key may fulfil

EXPLAINED_A_DAY = 100, 10_000  # least and most; the attribution channel needs 100

Value = bool | int | float | str | None


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """One row's prediction with its provenance."""

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
    request_id: str = ""  # the caller's id of the request
    share: float = 1.0  # share of the endpoint's requests logged at the time: this one represents 1 / share
    personal: tuple[str, ...] = ()  # keys, fields and features missing above because they identify a person
    sealed: bytes = b""  # their encrypted values (`ledger.sealing`); empty if left out
    rollout: str = ""  # of which its version was an arm; empty where the caller chose the version, too
    weight: float = 1.0  # the probability with which its version was assigned
    unit: int = 0  # hash of the assigned unit, 63 bits; 0 without a rollout
    row: int = 0  # of a rollout: its place among the rows of its request
    cached: bool = False  # whether it was computed for another request

    @property
    def fallback(self) -> bool:
        """Whether a fallback answered in the place of the model."""
        return FALLBACK in self.outputs

    @property
    def withheld(self) -> Literal["encrypted", "left out"] | None:
        """Treatment of the values of `personal`, `None` if there are none."""
        return None if not self.personal else "encrypted" if self.sealed else "left out"


class KeptExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """An explanation of a prediction as it was given, or as a sample of a day.

    Attributes:
        id: Of the prediction, as are the next five.
        origin: `requested`: its caller got it with the answer; `sampled`: the worker made it.
        method: Name of the method; `space` is the unit of the contributions.
        residual: The largest residual.
        document: The whole explanation as JSON.
    """

    id: str
    endpoint: str
    model: str
    version: str
    digest: str
    at: int  # UTC epoch microseconds
    origin: str
    method: str
    space: str
    exact: bool
    residual: float
    document: str


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """Log settings of an endpoint: the share of logged requests, durability, and the treatment of personal data.

    Args:
        share: Share of requests that are logged, above 0, at most 1. A request is chosen by a hash of its caller's id,
            so a retry is logged if the first attempt was.
        sync: Answer a request only once its predictions are on disk; reject it if they cannot be written.
        personal: Treatment of values of columns that a source marks with `pii`, and of features made of them: encrypted
            with the installation's key, or left out.
        explanations: Number of predictions a day that the worker explains and keeps the explanations of, 100 to 10,000;
            the gateway then keeps those that it gives, too. With 0 it keeps only those; by default none are kept.

    Raises:
        Invalid: The share is not valid, some requests of a `sync` endpoint would not be logged, or another number of
            explanations.
    """

    share: float = 1.0
    sync: bool = False
    personal: Literal["encrypt", "leave out"] = "encrypt"
    explanations: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.share <= 1.0:
            raise Invalid(f"The share of logged requests is {self.share}.", fix="give a share above 0, at most 1.")
        if self.sync and self.share < 1.0:
            raise Invalid(
                f"A synchronous log of a share of {self.share} gives no guarantee for the other requests.",
                fix="leave out share, or sync.",
            )
        if self.personal not in ("encrypt", "leave out"):
            raise Invalid(f"personal is {self.personal!r}.", fix='write "encrypt" or "leave out".')
        least, most = EXPLAINED_A_DAY
        if self.explanations is not None and not (self.explanations == 0 or least <= self.explanations <= most):
            raise Invalid(
                f"explanations is {self.explanations!r}.",
                fix=f"write 0 to keep those that callers asked for, or {least} to {most} a day.",
            )


class Heading(msgspec.Struct, frozen=True, array_like=True, cache_hash=True):
    """Header shared by the predictions of a batch: endpoint, model version, and names of the columns in order."""

    endpoint: str
    model: str
    version: str
    digest: str
    keys: tuple[str, ...] = ()
    request: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    personal: tuple[str, ...] = ()


class Asked(NamedTuple):
    """One request of a batch; its `rows` predictions are consecutive."""

    principal: str
    latency_us: int
    rows: int
    request_id: str = ""


class Assigned(NamedTuple):
    """Assignment of a request to a rollout's arm: with which probability, and by the hash of which unit."""

    rollout: str
    weight: float
    unit: int
    row: int = 0  # the place of the first of these rows within the request


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Requests to an arm of a rollout that were not answered.

    Many at once of one arm, kind and weight are one record: `count` says how many, `latency_us` is their mean, and
    what differs between them is empty. No failure is left out for being one of many.
    """

    id: str
    endpoint: str
    model: str
    version: str
    digest: str
    at: int  # UTC epoch microseconds, by the process's clock
    kind: str  # of the error: `ModelFailed`, `DeadlineExceeded`, `Overloaded`, `Unavailable`, `Invalid`, ...
    status: int  # HTTP's, also over gRPC
    latency_us: int
    rollout: str
    weight: float
    unit: int = 0
    principal: str = ""
    request_id: str = ""
    share: float = 1.0
    count: int = 1

    @property
    def like(self) -> Failure:
        """The record of any number of such failures, without what tells one from another."""
        return msgspec.structs.replace(self, id="", at=0, latency_us=0, unit=0, principal="", request_id="", count=0)


class Batch(msgspec.Struct, array_like=True, gc=False):
    """Predictions made together, by column, as in serving; this costs a tenth of rows.

    A column is a list or a NumPy array of shape (rows, ...); of large tensors only type and shape are stored. It is
    never modified. Those of one batch were all computed for their requests, or all `cached`.
    """

    heading: Heading
    at: int
    share: float
    ids: Sequence[str]
    asked: Sequence[Asked]
    columns: Sequence[Any]  # in the heading's order: keys, request, features, statuses, outputs
    sealed: Sequence[bytes] = ()  # shape (rows,), or empty
    assigned: Sequence[Assigned | None] = ()  # as `asked`, or empty
    cached: bool = False


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Conditions that a prediction fulfils all of; one that is left out holds for every prediction.

    Attributes:
        since: The smallest instant, UTC epoch microseconds.
        until: The instant behind the last.
        score_from: The smallest score, the first output's value.
        score_to: The largest score.
        keys: Name of an entity key -> its value as text; the name `ANY_KEY` stands for any key.
        status: Status of at least one stored feature, such as `MISSING`.
        id_prefix: The beginning of the id.
    """

    id_prefix: str = ""
    endpoint: str | None = None
    version: str | None = None
    since: int | None = None
    until: int | None = None
    score_from: float | None = None
    score_to: float | None = None
    keys: Mapping[str, str] = {}
    status: str | None = None

    def holds(self, prediction: Prediction) -> bool:
        """Return whether a prediction is selected. A key that is encrypted or was left out equals no value."""
        score = score_of(prediction)
        return (
            prediction.id.startswith(self.id_prefix)
            and self.endpoint in (None, prediction.endpoint)
            and self.version in (None, prediction.version)
            and (self.since is None or prediction.at >= self.since)
            and (self.until is None or prediction.at < self.until)
            and (self.score_from is None or (score is not None and score >= self.score_from))
            and (self.score_to is None or (score is not None and score <= self.score_to))
            and (self.status is None or self.status in prediction.statuses.values())
            and all(
                any(key_text(value) == text for key, value in prediction.keys.items() if name in (ANY_KEY, key))
                for name, text in self.keys.items()
            )
        )


def key_text(value: Value) -> str:
    """Return a key as a person writes it."""
    return {True: "true", False: "false", None: ""}[value] if value is None or isinstance(value, bool) else str(value)


def score_of(prediction: Prediction) -> float | None:
    """Return the first output as a number; `None` if it is none."""
    return as_score(next(iter(prediction.outputs.values()), None))


def as_score(output: Value | list[float]) -> float | None:
    """Return an output as a number, of a vector its first element; `None` if it is none."""
    if isinstance(output, list):
        output = output[0] if output else None
    return float(output) if isinstance(output, (int, float)) else None
