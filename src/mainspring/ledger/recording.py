"""Recording of a version's predictions: choice of requests and values to log, and sealing of personal values."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import msgspec

from mainspring.core.ids import new_id
from mainspring.ledger.model import FALLBACK, REQUESTED, Asked, Assigned, Batch, Failure, Heading, KeptExplanation, Log
from mainspring.ledger.ports import PredictionLog, Seals

Columns = Mapping[str, Any]  # name -> a column, see `Batch`
_PLANS = 256  # callers choose their optional fields, so there can be many
_NOTHING: Columns = {}
_Key = tuple[tuple[str, ...], tuple[str, ...], bool]  # what was sent, outputs, and whether there are statuses


@dataclass(frozen=True, slots=True)
class _Plan:
    """Logging plan for batches with the same columns."""

    heading: Heading
    sent: Callable[[Columns], tuple[Any, ...]]
    features: Callable[[Columns], tuple[Any, ...]]
    hidden_sent: tuple[str, ...]
    hidden_features: tuple[str, ...]


class Recorder:
    """Recorder of the predictions of one version behind one endpoint.

    Args:
        keys: Names of the entity keys.
        personal: Names of keys, request fields and features whose values identify a person.
    """

    def __init__(
        self,
        log: PredictionLog,
        *,
        endpoint: str,
        model: str,
        version: str,
        digest: str,
        keys: Collection[str] = (),
        personal: Collection[str] = (),
        policy: Log | None = None,
    ) -> None:
        self._log = log
        self._endpoint = endpoint
        self._made_by = (endpoint, model, version, digest)
        self._keys = frozenset(keys)
        self._personal = frozenset(personal)
        self._plans: dict[_Key, _Plan] = {}
        self.policy = Log() if policy is None else policy  # may be changed at any time

    def record(
        self,
        *,
        at: int,
        ids: Sequence[str],
        asked: Sequence[Asked],
        features: Columns,
        outputs: Columns,
        sent: Columns = _NOTHING,
        statuses: Columns = _NOTHING,
        assigned: Sequence[Assigned | None] = (),
        fallback: Sequence[int] = (),
        cached: bool = False,
    ) -> list[Future[None]]:
        """Log a batch.

        The rows that a fallback answered have one output, a text, and so no score.

        Args:
            asked: Its requests; their rows are consecutive in `ids` and in every column.
            features: The model's inputs, the same in every batch, as are the outputs.
            sent: Columns of the requests by key, including the keys. Empty for full inputs.
            statuses: Statuses of stored features, for the same features in every batch, or empty.
            assigned: The requests' assignments to a rollout's arm; empty where there are none.
            fallback: Rows that a fallback answered, ascending.
            cached: Whether all were computed for other requests.

        Returns:
            With the policy `sync` futures; once all are done the response may be sent.
        """
        policy = self.policy
        if policy.share < 1.0:
            chosen = [_chosen(each.request_id or ids[row], policy.share) for row, each in _firsts(asked)]
            if not all(chosen):
                rows = [row for (first, each), take in zip(_firsts(asked), chosen, strict=True) if take
                        for row in range(first, first + each.rows)]  # fmt: skip
                self._log.skip(self._endpoint, "sampled", len(ids) - len(rows))
                if not rows:
                    return []
                apart = {*fallback}
                fallback = [place for place, row in enumerate(rows) if row in apart]
                ids = [ids[row] for row in rows]
                asked = [each for each, take in zip(asked, chosen, strict=True) if take]
                assigned = [each for each, take in zip(assigned, chosen, strict=bool(assigned)) if take]
                features, outputs, sent, statuses = (_taken(each, rows) for each in (features, outputs, sent, statuses))
        if not fallback:
            return self._add(at, ids, asked, features, outputs, sent, statuses, assigned, cached)
        added, singles = list[Future[None]](), [*_single(asked, assigned)]
        for rows in (sorted({*range(len(ids))}.difference(fallback)), [*fallback]):
            if not rows:
                continue
            one, arms = zip(*(singles[row] for row in rows), strict=True)
            answers = _taken(outputs, rows)
            if rows[0] in fallback:
                answers = {FALLBACK: _texts(answers, len(rows))}
            added += self._add(
                at,
                [ids[row] for row in rows],
                one,
                _taken(features, rows),
                answers,
                _taken(sent, rows),
                _taken(statuses, rows),
                arms if assigned else (),
                cached,
            )
        return added

    def _add(
        self,
        at: int,
        ids: Sequence[str],
        asked: Sequence[Asked],
        features: Columns,
        outputs: Columns,
        sent: Columns,
        statuses: Columns,
        assigned: Sequence[Assigned | None],
        cached: bool,
    ) -> list[Future[None]]:
        policy, key = self.policy, (tuple(sent), tuple(outputs), bool(statuses))
        plan = self._plans.get(key) or self._plan(key, features, statuses, outputs)
        columns = [*plan.features(features), *statuses.values(), *outputs.values()]
        if sent:
            columns[:0] = plan.sent(sent)
        sealed: Sequence[bytes] = ()
        if plan.heading.personal and policy.personal == "encrypt" and self._log.sealer is not None:
            sealed = self._sealed(self._log.sealer, plan, ids, sent, features)
        batch = Batch(plan.heading, at, policy.share, ids, asked, columns, sealed, assigned, cached)
        added = self._log.add(batch, sync=policy.sync)
        return [] if added is None else [added]

    def explained(
        self,
        ids: Sequence[str],
        explanations: Sequence[Mapping[str, Any]],
        columns: Collection[str],
        *,
        at: int,
        request_id: str = "",
    ) -> None:
        """Keep explanations that a request got, if the policy keeps any and its predictions are logged.

        Those of a model with inputs that identify a person are not kept, as contributions tell values.

        Args:
            explanations: For each prediction the fields `method`, `space`, `exact`, `residual` and `document` of
                `KeptExplanation`.
            columns: The model's inputs.
            at: Instant of the predictions, UTC epoch microseconds.
        """
        endpoint, model, version, digest = self._made_by
        if self.policy.explanations is None or not self._personal.isdisjoint(columns) or not ids:
            return
        if not _chosen(request_id or ids[0], self.policy.share):
            return
        self._log.explain(
            [
                KeptExplanation(
                    id=id_,
                    endpoint=endpoint,
                    model=model,
                    version=version,
                    digest=digest,
                    at=at,
                    origin=REQUESTED,
                    **each,
                )
                for id_, each in zip(ids, explanations, strict=True)
            ]
        )

    def failure(
        self,
        *,
        at: int,
        kind: str,
        status: int,
        latency_us: int,
        assigned: Assigned,
        principal: str,
        request_id: str,
        id_: str = "",
    ) -> Failure | None:
        """Return the record of a request that failed; `None` if the policy's share does not choose it.

        It is chosen as its predictions would have been, independently of the arm.

        Args:
            id_: Of the record; by default a new one.
        """
        id_, share = id_ or new_id(), self.policy.share
        if share < 1.0 and not _chosen(request_id or id_, share):
            return None
        endpoint, model, version, digest = self._made_by
        return Failure(
            id=id_,
            endpoint=endpoint,
            model=model,
            version=version,
            digest=digest,
            at=at,
            kind=kind,
            status=status,
            latency_us=latency_us,
            rollout=assigned.rollout,
            weight=assigned.weight,
            unit=assigned.unit,
            principal=principal,
            request_id=request_id,
            share=share,
        )

    def _plan(self, key: _Key, features: Columns, statuses: Columns, outputs: Columns) -> _Plan:
        keys = [name for name in key[0] if name in self._keys and name not in self._personal]
        fields = [name for name in key[0] if name not in self._keys and name not in self._personal]
        known = [name for name in features if name not in self._personal]
        hidden_sent = tuple(name for name in key[0] if name in self._personal)
        hidden_features = tuple(name for name in features if name in self._personal)
        heading = Heading(
            *self._made_by,
            tuple(keys),
            tuple(fields),
            tuple(known),
            tuple(statuses),
            tuple(outputs),
            tuple(dict.fromkeys((*hidden_sent, *hidden_features))),
        )
        if len(self._plans) >= _PLANS:
            self._plans.clear()
        plan = self._plans[key] = _Plan(
            heading, _picker([*keys, *fields]), _picker(known), hidden_sent, hidden_features
        )
        return plan

    def _sealed(self, sealer: Seals, plan: _Plan, ids: Sequence[str], sent: Columns, features: Columns) -> list[bytes]:
        columns = {
            "keys": {name: _listed(sent[name]) for name in plan.hidden_sent if name in self._keys},
            "request": {name: _listed(sent[name]) for name in plan.hidden_sent if name not in self._keys},
            "features": {name: _listed(features[name]) for name in plan.hidden_features},
        }
        return [
            sealer.seal(
                id_, {group: {name: column[row] for name, column in of.items()} for group, of in columns.items()}
            )
            for row, id_ in enumerate(ids)
        ]


class Tally:
    """Failures summed up: one record for all of an arm, kind and weight, however many there are."""

    def __init__(self) -> None:
        self._sums: dict[Failure, tuple[int, int, int]] = {}  # alike -> count, summed latency, last instant

    def __bool__(self) -> bool:
        return bool(self._sums)

    def add(self, failure: Failure) -> None:
        """Count a failure, or the number that it stands for."""
        count, latency_us, at = self._sums.get(failure.like, (0, 0, 0))
        added = failure.count * failure.latency_us
        self._sums[failure.like] = (count + failure.count, latency_us + added, max(at, failure.at))

    def take(self) -> list[Failure]:
        """Return one record a kind, and begin again."""
        sums, self._sums = self._sums, {}
        return [
            msgspec.structs.replace(like, id=new_id(), at=at, latency_us=latency_us // count, count=count)
            for like, (count, latency_us, at) in sums.items()
        ]

    def counts(self) -> dict[tuple[str, str], int]:
        """Return (endpoint, version) -> number of failures."""
        found: dict[tuple[str, str], int] = {}
        for like, (count, _, _) in list(self._sums.items()):
            key = (like.endpoint, like.version)
            found[key] = found.get(key, 0) + count
        return found


def _firsts(asked: Sequence[Asked]) -> list[tuple[int, Asked]]:
    """Return each request with the index of its first row."""
    found, row = [], 0
    for each in asked:
        found.append((row, each))
        row += each.rows
    return found


def _single(asked: Sequence[Asked], assigned: Sequence[Assigned | None]) -> Iterator[tuple[Asked, Assigned | None]]:
    """Yield each row as if it were a request of its own."""
    for each, arm in zip(asked, assigned or [None] * len(asked), strict=True):
        for row in range(each.rows):
            yield each._replace(rows=1), arm and arm._replace(row=arm.row + row)


def _texts(outputs: Columns, rows: int) -> list[str]:
    columns = [_listed(column) for column in outputs.values()]
    return [
        msgspec.json.encode({name: column[row] for name, column in zip(outputs, columns, strict=True)}).decode()
        for row in range(rows)
    ]


def _chosen(name: str, share: float) -> bool:
    """Return whether a request is sampled for the log: a function of its id, equal in every process."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) < share * 2.0**64


def _taken(columns: Columns, rows: list[int]) -> Columns:
    return {
        name: [column[row] for row in rows] if isinstance(column, (list, tuple)) else column[rows]
        for name, column in columns.items()
    }


def _listed(column: Any) -> Sequence[Any]:
    found: Sequence[Any] = column.tolist() if hasattr(column, "tolist") else column
    return found


def _picker(names: Sequence[str]) -> Callable[[Columns], tuple[Any, ...]]:
    """Return a function that selects these columns in this order."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda columns: tuple(columns[name] for name in names)
