"""A prediction log in memory: both sides of the ports."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

from mainspring.core.errors import NotFound
from mainspring.core.time import HOUR
from mainspring.ledger.batches import batches_of, predictions_of
from mainspring.ledger.key_sample import hashed, smallest
from mainspring.ledger.model import SAMPLED, Batch, Failure, KeptExplanation, Prediction, Selection, Value
from mainspring.ledger.ports import Arrivals, Cursor, Observations, Observed, Observer, PredictionPage, Seals
from mainspring.ledger.sealing import Opener, Sealer, revealed
from mainspring.security.data_keys import OneKey

if TYPE_CHECKING:
    import pyarrow as pa


class MemoryLedger:
    """`PredictionLog` and `PredictionStore` in one.

    Args:
        observer: Counts each prediction once, as it is compacted.
    """

    def __init__(self, observer: Observer | None = None) -> None:
        self._observer = observer
        self._compactions = 0
        key = OneKey()
        self._appended: list[Prediction] = []
        self._compacted: dict[str, Prediction] = {}  # in order of arrival
        self._failed: list[Failure] = []
        self._came: list[Prediction | Failure] = []  # of rollouts, in the order of compaction; a removed one stays
        self._failures: dict[str, Failure] = {}
        self._explained: dict[tuple[str, str], KeptExplanation] = {}  # by prediction and origin
        self._removed = 0  # predictions; a position counts them
        self._told_since = 0  # smallest position after which arrivals are known
        self._lock = threading.Lock()
        self._opener = Opener(key)
        self.sealer: Seals | None = Sealer(key)
        self.unlogged: Counter[tuple[str, str]] = Counter()
        self.unlogged_failures: Counter[tuple[str, str]] = Counter()

    def add(self, batch: Batch, *, sync: bool = False) -> Future[None] | None:
        self.append(predictions_of(batch.heading, batch))
        if not sync:
            return None
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def fail(self, failures: Sequence[Failure], *, sync: bool = False) -> Future[None] | None:
        with self._lock:
            self._failed.extend(failures)
        if not sync:
            return None
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def explain(self, explanations: Sequence[KeptExplanation]) -> None:
        with self._lock:
            self._explained.update(((each.id, each.origin), each) for each in explanations)

    def append(self, predictions: Sequence[Prediction]) -> None:
        with self._lock:
            self._appended.extend(predictions)

    def skip(self, endpoint: str, cause: str, rows: int) -> None:
        self.unlogged[endpoint, cause] += rows

    def damaged(self) -> int:
        return 0

    def waiting(self) -> int:
        with self._lock:
            return len(self._appended)

    def close(self) -> None:
        pass

    def compact(self) -> int:
        with self._lock:
            moved, self._appended = self._appended, []
            self._compacted.update((prediction.id, prediction) for prediction in moved)
            failed, self._failed = self._failed, []
            self._failures.update((failure.id, failure) for failure in failed)
            self._came += [*(each for each in moved if each.rollout), *failed]
            self._compactions += 1
        if self._observer is not None:
            if moved:
                self._observer.observe(f"memory:{self._compactions}", self._observed(moved))
            self._observer.settle(self)
        return len(moved)

    def _observed(self, predictions: Sequence[Prediction]) -> list[Observed]:
        from mainspring.ledger.column_batches import gathered

        batches = gathered((each.heading, each) for each in batches_of(predictions))
        return [batch.observed(self._opener) for batch in batches]

    def hours(self) -> Counter[int]:
        return Counter(each.at // HOUR * HOUR for each in self._compacted.values())

    def between(self, since: int, until: int) -> Iterator[Observed]:
        yield from self._observed([each for each in self._compacted.values() if since <= each.at < until])

    def tidy(self, *, made_before: int | None = None, replaced_before: int, entries: int = 1_000) -> int:  # noqa: ARG002
        with self._lock:
            old = [each.id for each in self._compacted.values() if made_before is not None and each.at < made_before]
            for each in old:
                del self._compacted[each]
            if made_before is not None:
                self._failures = {id_: each for id_, each in self._failures.items() if each.at >= made_before}
                self._explained = {key: each for key, each in self._explained.items() if each.at >= made_before}
            if old:
                self._removed += len(old)
                self._told_since = self._removed + len(self._compacted)
        return len(old)

    def erase(self, keys: Mapping[str, Value], *, dry_run: bool = False) -> int:
        gone = {each.id for each in self.of_subject(keys)}
        if not dry_run and gone:
            with self._lock:
                self._appended = [each for each in self._appended if each.id not in gone]
                self._came = [each for each in self._came if each.id not in gone]
                self._explained = {key: each for key, each in self._explained.items() if key[0] not in gone}
                for each in gone:
                    self._removed += self._compacted.pop(each, None) is not None
                self._told_since = self._removed + len(self._compacted)
        return len(gone)

    def of_subject(self, keys: Mapping[str, Value]) -> Iterator[Prediction]:
        for each in map(self.revealed, self._all()):
            if all(name in each.keys and each.keys[name] == value for name, value in keys.items()):
                yield each

    def find(self, prediction_id: str) -> Prediction:
        for prediction in self._all():
            if prediction.id == prediction_id:
                return prediction
        raise NotFound(
            f"There is no prediction {prediction_id!r}.",
            fix="give the id in the response; a new prediction is available within a second.",
        )

    def revealed(self, prediction: Prediction) -> Prediction:
        return revealed(prediction, self._opener)

    def recent(self, endpoint: str | None = None, limit: int = 50) -> list[Prediction]:
        wanted = [prediction for prediction in self._all() if endpoint in (None, prediction.endpoint)]
        return sorted(wanted, key=lambda prediction: prediction.at, reverse=True)[:limit]

    def digests(self) -> set[str]:
        return {prediction.digest for prediction in self._all()}

    def read(self, endpoint: str, since: int, until: int) -> pa.Table:
        import pyarrow as pa

        from mainspring.ledger.columns import read_of, to_batch

        with self._lock:
            compacted = list(self._compacted.values())
        wanted = [each for each in compacted if each.endpoint == endpoint and since <= each.at < until]
        wanted.sort(key=lambda prediction: prediction.at)
        return read_of(pa.Table.from_batches([to_batch(wanted)]), self._opener)

    def arrivals(
        self,
        endpoint: str,
        since: int,
        until: int | None = None,
        *,
        after: int | None = None,
        by: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> Arrivals | None:
        import pyarrow as pa

        from mainspring.ledger.columns import WATCHED, read_of, to_batch

        with self._lock:
            came, position = list(self._compacted.values()), self._removed + len(self._compacted)
        if by is not None:
            came, position = came[: max(0, by - self._removed)], by
        if after is not None and after < self._told_since:
            return None
        wanted = [
            each
            for each in came[0 if after is None else after - self._removed :]
            if each.endpoint == endpoint and since <= each.at and (until is None or each.at < until)
        ]
        table = pa.Table.from_batches([to_batch(wanted)])
        return Arrivals(position, iter([read_of(table, self._opener, columns or WATCHED)] if wanted else []))

    def newest(self, selection: Selection, limit: int = 50, before: Cursor | None = None) -> PredictionPage:
        wanted = [
            each for each in self._all() if selection.holds(each) and (before is None or (each.at, each.id) < before)
        ]
        wanted.sort(key=lambda each: (each.at, each.id), reverse=True)
        page = wanted[:limit]
        return PredictionPage(page, Cursor(page[-1].at, page[-1].id) if len(wanted) > limit else None)

    def sample(self, selection: Selection, count: int, *, seed: int = 0) -> list[str]:
        found = [each.id for part in self.scan(selection) for each in part]
        return found if len(found) <= count else random.Random(seed).sample(found, count)  # noqa: S311

    def sample_by_key(self, selection: Selection, count: int) -> list[str]:
        return smallest(map(hashed, self.scan(selection)), count)

    def scan(self, selection: Selection, ids: Collection[str] | None = None) -> Iterator[list[Prediction]]:
        with self._lock:
            compacted = list(self._compacted.values())
        wanted = None if ids is None else frozenset(ids)
        found = [each for each in compacted if selection.holds(each) and (wanted is None or each.id in wanted)]
        if found:
            yield found

    def failures(self, rollout: str) -> list[Failure]:
        with self._lock:
            found = [each for each in self._failures.values() if each.rollout == rollout]
        return sorted(found, key=lambda failure: (failure.at, failure.id))

    def failed(self, rollout: str, ids: Collection[str]) -> set[str]:
        with self._lock:
            known = [*self._failures.values(), *self._failed]
        return {each.id for each in known if each.rollout == rollout}.intersection(ids)

    def explanations(self, prediction_id: str) -> list[KeptExplanation]:
        with self._lock:
            found = [each for each in self._explained.values() if each.id == prediction_id]
        return sorted(found, key=lambda each: each.origin)

    def explained(self, endpoint: str, version: str, since: int, until: int) -> list[KeptExplanation]:
        with self._lock:
            found = list(self._explained.values())
        wanted = [
            each
            for each in found
            if (each.endpoint, each.version, each.origin) == (endpoint, version, SAMPLED) and since <= each.at < until
        ]
        return sorted(wanted, key=lambda each: (each.at, each.id))

    def observations(self, rollout: str, after: str = "", *, since: int = 0) -> Observations | None:
        import pyarrow as pa

        from mainspring.ledger.columns import failures_batch, observed, to_batch

        with self._lock:
            position, start = len(self._came), int(after or 0)
            came = [
                each
                for each in self._came[start:]
                if each.rollout == rollout
                and each.at >= since
                and each.id in (self._failures if isinstance(each, Failure) else self._compacted)
            ]
        if start > position:
            return None
        made = to_batch([each for each in came if isinstance(each, Prediction)])
        failed = failures_batch([each for each in came if isinstance(each, Failure)])
        tables = [observed(pa.Table.from_batches([batch])) for batch in (made, failed) if batch.num_rows]
        return Observations(str(position), iter(tables))

    def _all(self) -> list[Prediction]:
        with self._lock:
            return [*self._compacted.values(), *self._appended]
