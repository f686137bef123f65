"""Comparison of the offline, the online and a brute-force read on a user's own data.

Live data is not changed: states are built in a separate store, at random instants, and the live store is only read.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from mainspring.core.errors import MainspringError, Unavailable
from mainspring.core.time import ManualClock
from mainspring.data.arrow import ARROW_TYPES, INSTANT
from mainspring.data.model import TableScan
from mainspring.features.equal import same
from mainspring.features.layout import slot
from mainspring.features.materialise.materialiser import Materialiser
from mainspring.features.model import FeatureView, Mark
from mainspring.features.offline.read import point_in_time
from mainspring.features.online.reader import OnlineReader
from mainspring.features.ports import OnlineStore
from mainspring.features.verify.brute import BruteReader, Fact
from mainspring.features.verify.chosen import Bounds, choose, plain
from mainspring.features.verify.moments import Edges

Progress = Callable[[str, int, int], None]

_VISITS = 10_000_000  # maximum rows times features of the brute-force reader
_TRIES = 3  # attempts to read the live store without a concurrent write


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One feature of one entity on which the reads differ. Instants are UTC epoch microseconds.

    `online` is from the store named `store`: `own` (built for the comparison) or `live`. `recomputed` is missing if it
        was not computed.
    """

    feature: str
    entity: Mapping[str, Any]
    at: int
    store: str
    offline: Any
    online: Any
    recomputed: Any = None
    was_recomputed: bool = False


@dataclass(frozen=True, slots=True)
class Verification:
    """Result of verifying one view: numbers of compared values, and the mismatches.

    Attributes:
        entities, pairs: Numbers of compared entities, and of (entity, instant) pairs.
        online: Values of the online read of a store built for it, compared with the offline read.
        live: Values of the live store, now, compared with the offline read.
        recomputed: Values of the offline and the online read compared with the brute-force one.
        behind: Entities left out of the comparison with the live store, because rows arrived since it was updated.
        notes: Reasons why a part could not be compared.
    """

    view: str
    seed: int
    entities: int
    pairs: int
    online: int
    live: int
    recomputed: int
    behind: int
    mismatches: tuple[Mismatch, ...]
    notes: tuple[str, ...] = ()


@dataclass
class _Tally:
    online: int = 0
    live: int = 0
    recomputed: int = 0
    estimates: set[str] = field(default_factory=set)
    mismatches: list[Mismatch] = field(default_factory=list)


class Verifier:
    """Comparison of the reads of one view.

    Args:
        scan: The version of the view's source to read.
        own_store: Creates an empty store for the comparison.
        seed: Seed of the choice: the same seed and data give the same comparison.

    Raises:
        NotFound: The source has no row without a null key.
    """

    def __init__(
        self,
        view: FeatureView,
        scan: TableScan,
        own_store: Callable[[], OnlineStore],
        *,
        seed: int = 0,
        bounds: Bounds | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._view = view
        self._scan = scan
        self._own_store = own_store
        self._seed = seed
        self._bounds = bounds or Bounds()
        self._tell = progress or (lambda _stage, _done, _total: None)
        self._chance = random.Random(f"{seed} {view.name}")  # noqa: S311 - a choice, not a secret
        self._tally = _Tally()
        chosen = choose(view, scan, seed, self._bounds)
        self._keys, self._part, self._facts = chosen.keys, chosen.scan, chosen.facts
        self._brute: dict[int, BruteReader] = {}
        self._visits = _VISITS
        self._left = self._bounds.recomputed

    def run(self, sample: int, live: OnlineStore, now: int, *, applied: bool = True) -> Verification:
        """Compare about `sample` (entity, instant) pairs, and the live store at `now`.

        Args:
            applied: Whether the view is applied as declared; if not, a note is added.

        Raises:
            Unavailable: The live store does not respond.
        """
        moments = Edges(self._view, self._facts, self._chance).moments(sample)
        pairs = [pair for moment in moments for pair in moment.pairs]
        self._tell("offline", 0, len(pairs))
        offline = self._offline(pairs, lambda _: self._scan)
        self._tell("offline", len(pairs), len(pairs))
        store, clock = self._own_store(), ManualClock()
        materialiser = Materialiser(lambda _: self._part, store, clock)
        reader = OnlineReader([self._view], store)
        compared = 0
        try:
            for moment in moments:
                clock.set(moment.through)
                materialiser.run(self._view, horizon=moment.horizon)
                for entity, at in moment.pairs:
                    online = self._online(reader, [entity], at)[0]
                    self._tally.online += self._compare(entity, at, offline[compared], online, "own")
                    compared += 1
                    self._tell("online", compared, len(pairs))
        finally:
            materialiser.close()
        behind, notes = self._live(live, now)
        if not applied:
            notes = ["the current declaration is not applied: run `mainspring apply`", *notes]
        if self._tally.estimates:
            notes = [*notes, f"estimates, not recomputed: {', '.join(sorted(self._tally.estimates))}"]
        tally = self._tally
        return Verification(
            self._view.name, self._seed, len(self._keys), len(pairs), tally.online, tally.live, tally.recomputed,
            behind, tuple(tally.mismatches), tuple(notes),
        )  # fmt: skip

    # The reads

    def _offline(self, pairs: Sequence[tuple[int, int]], scan: Callable[[str], TableScan]) -> list[dict[str, Any]]:
        schema = self._view.entity.keys
        entity_keys = [self._keys[entity] for entity, _ in pairs]
        columns = {
            key: pa.array([values[position] for values in entity_keys], ARROW_TYPES[dtype])
            for position, (key, dtype) in enumerate(schema.items())
        }
        observed = pa.table({**columns, "_at": pa.array([at for _, at in pairs], INSTANT)})
        read = point_in_time(observed, [self._view], scan, schema=dict(schema))
        return _rows({name: plain(read.column(name)) for name in self._view.columns}, len(pairs))

    def _online(self, reader: OnlineReader, entities: Sequence[int], at: int) -> list[dict[str, Any]]:
        """Read entities; if a state cannot be read, each of its features is the reason as text."""
        columns = {
            key: [self._keys[entity][position] for entity in entities]
            for position, key in enumerate(self._view.entity.keys)
        }
        try:
            return _rows(reader.read(columns, at).features, len(entities))
        except Unavailable:
            raise
        except Exception as error:  # a damaged state may fail in any way
            if len(entities) > 1:  # find the damaged one by reading them one by one
                return [self._online(reader, [entity], at)[0] for entity in entities]
            reason = error.what if isinstance(error, MainspringError) else repr(error)
            return [dict.fromkeys(self._view.columns, f"cannot be read: {reason}")]

    def _live(self, store: OnlineStore, now: int) -> tuple[int, list[str]]:
        """Compare the live store at `now`; return the number of entities for which it is behind, and notes."""
        reader = OnlineReader([self._view], store)
        for _ in range(_TRIES):
            mark = store.mark(slot(self._view))
            if mark is None:
                return 0, ["the live store has no values of the view: run `mainspring materialize`"]
            current = [
                entity for entity, facts in self._facts.items() if all(self._is_in(fact, mark, now) for fact in facts)
            ]
            served = self._online(reader, current, now)
            if store.mark(slot(self._view)) == mark:
                break
        else:
            return 0, ["the live store was being filled all the time, and was not compared"]
        offline = self._offline([(entity, now) for entity in current], lambda _: self._part)
        for entity, expected, online in zip(current, offline, served, strict=True):
            self._tally.live += self._compare(entity, now, expected, online, "live")
        return len(self._facts) - len(current), []

    def _is_in(self, fact: Fact, mark: Mark, now: int) -> bool:
        """Return whether states of a mark include everything about a fact that matters at `now`: its beginning and its
        end.
        """
        ends = [] if fact.superseded is None else [fact.superseded]
        changes = [self._visible(fact), *ends]
        return max(fact.seq, fact.ender) <= mark.newest and not any(mark.until <= at < now for at in changes)

    def _visible(self, fact: Fact) -> int:
        return fact.visible(self._view.source.lag_us)

    # The comparison

    def _compare(self, entity: int, at: int, offline: Mapping[str, Any], online: Mapping[str, Any], store: str) -> int:
        """Compare two reads of an entity, and a third within the cost limit; return the number of values."""
        brute = self._recompute(entity, at)
        for name in self._view.columns:
            differs = not same(offline[name], online[name])
            if brute and name not in brute:
                self._tally.estimates.add(name)
            if name in brute:
                self._tally.recomputed += 1
                differs = differs or not same(offline[name], brute[name])
            if differs:
                self._tally.mismatches.append(
                    Mismatch(name, dict(zip(self._view.entity.keys, self._keys[entity], strict=True)), at, store,
                             offline[name], online[name], brute.get(name), name in brute)
                )  # fmt: skip
        return len(self._view.columns)

    def _recompute(self, entity: int, at: int) -> dict[str, Any]:
        cost = len(self._facts[entity]) * len(self._view.features)
        if self._left <= 0 or cost > self._visits:
            return {}
        self._left -= 1
        self._visits -= cost
        if entity not in self._brute:
            self._brute[entity] = BruteReader(self._view, self._facts[entity])
        return {f"{self._view.name}.{name}": value for name, value in self._brute[entity].read(at).items()}


def _rows(columns: Mapping[str, Iterable[Any]], number: int) -> list[dict[str, Any]]:
    if not columns:
        return [{} for _ in range(number)]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
