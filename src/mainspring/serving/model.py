"""Endpoints, what stands behind one right now, and what one was measured to do."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

import msgspec

from mainspring.core.definition_registry import declare, expect, expect_each
from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.core.time import parse_duration
from mainspring.ledger.model import Log
from mainspring.security.quota import ALL, OWNER, Price, Quota
from mainspring.serving.devices.device import CPU, KINDS
from mainspring.serving.outputs import Outputs

# Upper bounds of the histograms of durations, seconds.
LATENCY_BOUNDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.025, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
IN_TIME = 0.99  # of the requests that were due, at least, for a load to be met

REFUSE, DEFAULTS, FLAG, FALLBACK = "refuse", "defaults", "flag", "fallback"
KEY, REQUEST = "key", "request"
MOST_EXECUTORS = 64
_ROUNDING = 1e-9
_EVERYTHING = Log()
_FREE = Price()


@dataclass(frozen=True)
class Unusual:
    """Treatment of rows that are unlike those that a model was trained on.

    A row is unusual if something about it is rarer, among the training rows, than anything about all but a share of the
    rows that the model was judged on; see `stats.unusual`. Models of tensors and bundles of older releases cannot tell:
    their rows are counted as unchecked.

    Args:
        then: "flag": the reply says which rows are unusual, and by which feature most; "refuse": a request with an
            unusual row is refused; "fallback": `answer` is given for the unusual rows, which the reply names.
        share: The largest share of usual rows that may be taken for unusual. The judged rows have to be enough, at
            least 1,999 for 0.001; with fewer the rows are counted as unchecked.
        answer: Of a fallback: output -> its value in one row, for each output of the model.
    """

    then: str
    share: float = 0.001
    answer: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.then not in (REFUSE, FLAG, FALLBACK):
            raise Invalid(f"Unusual rows are to be {self.then!r}.", fix=f'write "{FLAG}", "{REFUSE}" or "{FALLBACK}".')
        expect(self.answer, Mapping, "The fallback answer", fix='write answer={"probability": 0.5}.')
        if (self.then == FALLBACK) != bool(self.answer):
            raise Invalid(
                f"Unusual rows with then={self.then!r} have the answer {dict(self.answer)!r}.",
                fix=f'write ms.Unusual("{FALLBACK}", answer={{"probability": 0.5}}), or no answer.',
            )
        try:  # as routes have it
            object.__setattr__(self, "answer", json.loads(json.dumps(dict(self.answer), allow_nan=False)))
        except (TypeError, ValueError):
            raise Invalid(
                f"The fallback answer is {dict(self.answer)!r}.", fix="write finite numbers, texts, or lists of them."
            ) from None
        expect(self.share, float, "The share of usual rows that may be taken for unusual", fix="write share=0.001.")
        if not 0 < self.share <= 0.1:
            raise Invalid(
                f"The share of usual rows that may be taken for unusual is {self.share!r}.",
                fix="write a share above 0 and at most 0.1: share=0.001.",
            )


class Cache(msgspec.Struct, frozen=True, kw_only=True):
    """Use of earlier answers of an endpoint for equal inputs.

    An answer is kept by what the model saw, its stored features included, and by its version. Declare it for models
    whose answers follow from their inputs alone.

    Args:
        ttl: Time after which an answer is computed anew; a duration.
        most_bytes: Size of all answers that a gateway process keeps for the endpoint.
        by: Callers who share answers: "owner", those of one account, or of one key without an owner; or "all".
    """

    ttl: str = "1m"
    most_bytes: int = 64 << 20
    by: Literal["owner", "all"] = "owner"

    def __post_init__(self) -> None:
        expect(self.ttl, str, "The ttl of a cache", fix='write a duration: ms.Cache(ttl="1m").')
        if type(self.most_bytes) is not int or self.most_bytes < 1 or not parse_duration(self.ttl):
            raise Invalid(
                f"A cache has ttl={self.ttl!r} and {self.most_bytes!r} bytes.",
                fix='write ms.Cache(ttl="1m", most_bytes=64_000_000), with some of both.',
            )
        if self.by not in (OWNER, ALL):
            raise Invalid(f"A cache is by {self.by!r}.", fix=f'write "{OWNER}" or "{ALL}".')


@dataclass(frozen=True, eq=False)
class Endpoint:
    """A name under which predictions are asked for.

    Args:
        name: Its name, an id; it is the model name of the Open Inference Protocol.
        model: `model@alias` or `model@version`.
        deadline: The longest a request may take, a duration; what cannot make it is refused at once.
        replicas: Deprecated: it never had an effect. See `executors`.
        log: Log settings: the logged share of its predictions, and whether a response waits for the log.
        without_store: What becomes of a request by key while the online store does not answer: "refuse" is 503,
            "defaults" an answer from the stored features' defaults, as if the entity had never been seen. Their status
            is then UNAVAILABLE, in the reply and in the log.
        unusual: What becomes of rows that are unlike the training rows; by default they are answered as all are.
        quotas: Limits of what callers may ask for.
        price: Price of its answers, for quotas of money.
        outputs: What callers get of the model's numbers, by default all; the first policy that names a caller holds.
        cache: Use of earlier answers for equal inputs; by default each request is computed.
        resident: Whether its models stay in memory where a gateway has a bound on the memory of models.
        executors: The smallest and largest number of processes of a model that runs in processes of its own, for each
            process of the gateway. With 0 it leaves the memory when it is not asked for, and the first request brings
            it back; where a gateway has a bound on the memory of models, this holds for all models.
        idle: Time without requests after which a model may leave; a duration.
        device: Device that its models run on: "cpu"; "cuda", a GPU of the gateway; "tensorrt", the same by TensorRT;
            "openvino"; or "auto", a GPU where one can be used, else the processor, which is said. Which GPUs a gateway
            has is the profile's to say. Only ONNX models run elsewhere than on the processor.
    """

    name: str
    _: KW_ONLY
    model: str
    deadline: str | int = "50ms"
    replicas: tuple[int, int] | None = None
    max_queue_rows: int = 4096
    log: Log = _EVERYTHING
    description: str = ""
    without_store: str = REFUSE
    unusual: Unusual | None = None
    quotas: Sequence[Quota] = ()
    price: Price = _FREE
    outputs: Sequence[Outputs] = ()
    cache: Cache | None = None
    resident: bool = False
    executors: tuple[int, int] = (1, 1)
    idle: str | int = "5m"
    device: str = CPU

    def __post_init__(self) -> None:
        check_id(self.name, "endpoint")
        owner = f"The {{}} of endpoint {self.name!r}"
        name = getattr(self.model, "name", "MODEL")
        expect(self.model, str, owner.format("model"), fix=f'write a name with an alias or version: "{name}@champion".')
        expect(self.log, Log, owner.format("log"), fix="write log=ms.Log(...).")
        expect(self.max_queue_rows, int, owner.format("longest queue"), fix="write a number of rows.")
        if self.replicas is not None:
            warnings.warn(
                f"replicas={self.replicas!r} of endpoint {self.name!r} has no effect and will be removed. Fix: leave "
                "it out; executors=(1, 4) scales a model that runs apart, and the profile's gateway_workers are the "
                "processes that serve.",
                FutureWarning,
                stacklevel=3,
            )
        expect_each(self.quotas, Quota, owner.format("quotas"), fix="write quotas=[ms.Quota(...)].")
        expect(self.price, Price, owner.format("price"), fix="write price=ms.Price(row=0.001).")
        expect_each(self.outputs, Outputs, owner.format("outputs"), fix="write outputs=[ms.Outputs(digits=2)].")
        if self.price == _FREE and any(quota.cost is not None for quota in self.quotas):
            raise Invalid(f"Endpoint {self.name!r} has a quota of money and no price.", fix="write price=ms.Price().")
        if any(quota.tokens is not None for quota in self.quotas):
            raise Invalid(f"Endpoint {self.name!r} has a quota of tokens.", fix="give that to a language model.")
        model, _, reference = self.model.partition("@")
        if not reference:
            raise Invalid(f"Endpoint {self.name!r} serves {self.model!r}.", fix=f"write {self.model}@champion.")
        check_id(model, "model")
        check_id(reference, "alias or version")
        _ = self.deadline_us
        if self.without_store not in (REFUSE, DEFAULTS):
            raise Invalid(
                f"Endpoint {self.name!r} has without_store={self.without_store!r}.",
                fix=f'write without_store="{REFUSE}" or "{DEFAULTS}".',
            )
        if self.unusual is not None:
            expect(self.unusual, Unusual, owner.format("unusual rows"), fix='write unusual=ms.Unusual("flag").')
        if self.cache is not None:
            expect(self.cache, Cache, owner.format("cache"), fix='write cache=ms.Cache(ttl="1m").')
        expect(self.resident, bool, owner.format("stay in memory"), fix="write resident=True.")
        expect_each(self.executors, int, owner.format("executors"), fix="write the least and the most: (1, 4).")
        bounds = [*self.executors]
        if len(bounds) != 2 or not 0 <= bounds[0] <= bounds[1] <= MOST_EXECUTORS or not bounds[1]:
            raise Invalid(
                f"Endpoint {self.name!r} has executors={self.executors!r}.",
                fix=f"write the least, from 0, and the most, up to {MOST_EXECUTORS}: (0, 4).",
            )
        if self.resident and not self.executors[0]:
            raise Invalid(
                f"Endpoint {self.name!r} is resident and may have no executor.", fix="write executors=(1, 4)."
            )
        _ = self.idle_us
        if self.device not in KINDS:
            raise Invalid(
                f"Endpoint {self.name!r} has device={self.device!r}.",
                fix=f"write one of {', '.join(KINDS)}; which GPUs there are is for `devices` of the profile's gateway.",
            )
        declare(self)

    @property
    def idle_us(self) -> int:
        found = parse_duration(self.idle)
        if found < 1_000_000:
            raise Invalid(f"Endpoint {self.name!r} has idle={self.idle!r}.", fix='write at least "1s".')
        return found

    @property
    def model_name(self) -> str:
        return self.model.partition("@")[0]

    @property
    def reference(self) -> str:
        return self.model.partition("@")[2]

    @property
    def deadline_us(self) -> int:
        return parse_duration(self.deadline)


class Arm(msgspec.Struct, frozen=True):
    """One version behind an endpoint, with its share of the traffic.

    The weights of a route with a rollout are shares: they sum to 1. Those of other routes are divided by their sum.
    """

    version: str
    digest: str
    weight: float = 1.0


class Shed(msgspec.Struct, frozen=True, kw_only=True):
    """A share of an endpoint's requests that is refused on purpose, those of the lowest priority first.

    Attributes:
        share: Of all its requests, above 0 and at most 1.
        until: Its end by the machine's clock, UTC epoch microseconds. Gateways end it by themselves.
        salt: Hashed with a request's id: another salt draws all requests again.
        team: The group whose callers' requests alone are counted and refused; empty for all.
    """

    share: float
    until: int
    salt: str = ""
    team: str = ""


class Restriction(msgspec.Struct, frozen=True, kw_only=True):
    """Treatment of a caller that an incident caused.

    Attributes:
        caller: Id of the key or workload.
        to: "labels", answers with the class alone; or "refuse", none.
        incident: Id of the incident.
    """

    caller: str
    to: str
    incident: str = ""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Versions that an endpoint serves now.

    Attributes:
        revision: Grows with every change of any route.
        rollout: Id of the rollout that the arms belong to; empty without one. The first arm is then its control.
        assign: Unit that is assigned to an arm: "key", the entity key of a request's first row; or "request", the id
            that the caller gave the request, so that a retry stays in its arm, else a random number.
        by: With "key": name of the one key column that is the unit; empty for all key columns together.
        salt: Hashed with each unit: another salt draws all units again, independently.
        shed: The share of requests that is refused on purpose; `None` without one.
        restricted: Callers whom incidents restrict; these hold before `outputs`.
        team_sheds: Shares of single groups' requests that are refused on purpose.
    """

    endpoint: str
    model: str
    arms: tuple[Arm, ...]
    deadline_us: int
    max_queue_rows: int
    log: Log = _EVERYTHING
    without_store: str = REFUSE
    unusual: Unusual | None = None
    revision: int = 0
    rollout: str = ""
    assign: Literal["key", "request"] = "key"
    salt: str = ""
    by: str = ""
    shed: Shed | None = None
    quotas: tuple[Quota, ...] = ()
    price: Price = _FREE
    outputs: tuple[Outputs, ...] = ()
    restricted: tuple[Restriction, ...] = ()
    cache: Cache | None = None
    resident: bool = False
    executors: tuple[int, int] = (1, 1)
    idle_us: int = 300_000_000
    device: str = CPU
    team_sheds: tuple[Shed, ...] = ()

    @property
    def sheds(self) -> tuple[Shed, ...]:
        """All sheds that are on: that of all requests first."""
        return self.team_sheds if self.shed is None else (self.shed, *self.team_sheds)


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of one load. Rates are requests a second; `in_time` is a share of the requests that were due.

    Attributes:
        grew: Whether the queue grew through the whole load, which a longer one would not have met.
    """

    offered: float
    answered: float
    in_time: float
    refused: float  # a share likewise
    p50_us: float | None
    p99_us: float | None
    grew: bool = False

    @property
    def met(self) -> bool:
        return self.in_time >= IN_TIME and not self.grew


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement of an endpoint, on one machine.

    Attributes:
        asked_by: "keys" or "features": what a request brought.
        rows: How many rows a request had.
        workers: How many gateway processes answered.
        capacity: The highest load that met the deadline, requests a second; `None` where none did.
        alone_p50_us, alone_p99_us: The latency of one caller that asks again when it is answered.
        points: Every load that was tried, lightest first.
        stages_us: Stage -> mean µs a request, at the highest load that met the deadline.
        batch_rows: Mean rows of a batch there.
    """

    endpoint: str
    model: str
    version: str
    digest: str
    measured_at: int  # UTC epoch microseconds
    asked_by: str
    rows: int
    deadline_us: int
    workers: int
    capacity: float | None
    alone_p50_us: float
    alone_p99_us: float
    points: tuple[Point, ...]
    stages_us: dict[str, float] = {}
    batch_rows: float | None = None
    machine: str = ""


def normalised(routes: Iterable[Route]) -> dict[str, Route]:
    """Return endpoint -> route, sorted and without revisions, so that equal tables compare equal.

    Raises:
        Invalid: Two routes have one endpoint; a route has no arm, a negative weight or a total of zero; or the weights
            of a rollout do not sum to 1, or two of its arms have one version; or a shed's share is not above 0 and at
            most 1.
    """
    table: dict[str, Route] = {}
    for route in sorted(routes, key=lambda route: route.endpoint):
        if route.endpoint in table:
            raise Invalid(f"Two routes are for the endpoint {route.endpoint!r}.")
        weights = [arm.weight for arm in route.arms]
        if not weights or min(weights) < 0 or not 0 < sum(weights) < float("inf"):
            raise Invalid(f"The route of {route.endpoint!r} has the weights {weights}.", fix="give an arm some weight.")
        if route.rollout:
            _check_rollout(route, weights)
        for each in route.sheds:
            if not 0.0 < each.share <= 1.0:
                raise Invalid(
                    f"The route of {route.endpoint!r} sheds the share {each.share:g}.", fix="shed 0 to 1 of it."
                )
        table[route.endpoint] = msgspec.structs.replace(route, revision=0)
    return table


def _check_rollout(route: Route, weights: Sequence[float]) -> None:
    owner = f"The route of {route.endpoint!r}, of rollout {route.rollout!r},"
    check_id(route.rollout, "rollout")
    if abs(sum(weights) - 1.0) > _ROUNDING:
        raise Invalid(
            f"{owner} has the weights {weights}, whose sum is {sum(weights):g}.", fix="give shares whose sum is 1."
        )
    if len({arm.version for arm in route.arms}) < len(weights):
        raise Invalid(f"{owner} has the versions {[arm.version for arm in route.arms]}.", fix="name each version once.")
    if route.assign not in (KEY, REQUEST):
        raise Invalid(f"{owner} assigns by {route.assign!r}.", fix=f'write assign="{KEY}" or "{REQUEST}".')


def stamped(table: dict[str, Route], revision: int) -> dict[str, Route]:
    """Return the table with its revision on every route."""
    return {name: msgspec.structs.replace(route, revision=revision) for name, route in table.items()}
