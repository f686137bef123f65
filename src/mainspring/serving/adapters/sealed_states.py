"""Encryption in front of the states of a stream endpoint: states, batches and waiting outputs are envelopes.

What is in clear is read as it is. It is arrays of msgpack, none of which begins as an envelope does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from mainspring.security import envelopes
from mainspring.security.ports import Keys
from mainspring.serving.streaming.progress import BatchRecord, decode_record, encode_record
from mainspring.serving.streaming.state import Commit, Erasure, PartitionState, StateStore, Waiting

T = TypeVar("T", bytes, bytes | None)
STATES = "stream-states"  # purpose of the data keys, and name of the store in envelopes


class SealedStates:
    """`StateStore` of `store`. Keys of states, numbers, sizes and times stay in clear: stores look for them.

    Args:
        endpoint: Its name, to which envelopes are bound.
        encrypt: Whether what is written is encrypted; all can be read.
    """

    def __init__(self, store: StateStore, keys: Keys, endpoint: str, *, encrypt: bool) -> None:
        self._store = store
        self._keys = keys
        self._endpoint = endpoint
        self._encrypt = encrypt
        self.partitions, self.starts = store.partitions, store.starts

    @property
    def place(self) -> str:
        return self._store.place

    def open(self, partition: int, epoch: int | None = None, *, durable: bool = True) -> SealedState:
        state = self._store.open(partition, epoch, durable=durable)
        return SealedState(state, self._keys, f"{self._endpoint}/{partition}", encrypt=self._encrypt)


class SealedState:
    """`PartitionState` of `state`, whose envelopes are bound to `name` and to their key or number."""

    def __init__(self, state: PartitionState, keys: Keys, name: str, *, encrypt: bool) -> None:
        self._state = state
        self._keys = keys
        self._name = name
        self._encrypt = encrypt
        self.close, self.progress, self.begin, self.snapshot = state.close, state.progress, state.begin, state.snapshot
        self.enlist, self.sinks, self.number, self.deliver = state.enlist, state.sinks, state.number, state.deliver
        self.done, self.note, self.delivered, self.undelivered = (
            state.done, state.note, state.delivered, state.undelivered,
        )  # fmt: skip
        self.erasures, self.opened, self.attempt, self.survived = (
            state.erasures, state.opened, state.attempt, state.survived,
        )  # fmt: skip

    def states(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return self._opened_states(self._state.states(keys))

    def all_states(self) -> dict[bytes, bytes]:
        return self._opened_states(self._state.all_states())

    def commit(self, made: Commit) -> None:
        if not self._encrypt:
            return self._state.commit(made)
        number, outbox = made.progress.batch, [each for each in made.outbox if each.body]
        names = [*map(self._of_state, made.states), *map(self._of_entry, outbox), self._of_batch(number)]
        contents = [value for _, value in made.states.values()] + [each.body for each in outbox]
        sealed = iter(self._sealed(names, [*contents, encode_record(made.record)]))
        states = {key: (last, next(sealed)) for key, (last, _) in made.states.items()}
        waiting = [replace(each, body=next(sealed)) if each.body else each for each in made.outbox]
        return self._state.commit(
            replace(made, states=states, outbox=waiting, record=_around(made.record, next(sealed)))
        )

    def erase(self, erasure: Erasure, *, dry_run: bool = False) -> int:
        return self._state.erase(_Inside(self, erasure), dry_run=dry_run)

    def batches(self, after: int = 0, *, limit: int = -1) -> Iterator[tuple[int, BatchRecord]]:
        for number, record in self._state.batches(after, limit=limit):
            yield number, self.opened_batch(number, record)

    def newest_batches(self) -> Iterator[tuple[int, BatchRecord]]:
        for number, record in self._state.newest_batches():
            yield number, self.opened_batch(number, record)

    def waiting(self, after: int, limit: int = 1000, until: int = (1 << 62)) -> list[Waiting]:
        return self.opened_entries(self._state.waiting(after, limit, until))

    def opened_batch(self, number: int, record: BatchRecord) -> BatchRecord:
        """Return a stored batch as it was committed, with the states that expired."""
        undo = self._opened_states(record.undo)
        if record.sealed:
            (content,) = self._opened([self._of_batch(number)], [record.sealed])
            record = decode_record(content)
            undo |= record.undo
        record.undo = undo
        return record

    def sealed_batch(self, number: int, record: BatchRecord) -> BatchRecord:
        if not self._encrypt:
            return record
        (envelope,) = self._sealed([self._of_batch(number)], [encode_record(record)])
        return _around(record, envelope)

    def opened_entries(self, entries: list[Waiting]) -> list[Waiting]:
        sealed = [each for each in entries if each.body.startswith(envelopes.MAGIC_EACH)]
        if not sealed:
            return entries
        opened = iter(self._opened([*map(self._of_entry, sealed)], [each.body for each in sealed]))
        return [
            replace(each, body=next(opened)) if each.body.startswith(envelopes.MAGIC_EACH) else each for each in entries
        ]

    def sealed_entry(self, entry: Waiting) -> Waiting:
        if not self._encrypt or not entry.body:
            return entry
        (envelope,) = self._sealed([self._of_entry(entry)], [entry.body])
        return replace(entry, body=envelope)

    def _opened_states(self, stored: dict[bytes, T]) -> dict[bytes, T]:
        sealed: dict[bytes, bytes] = {
            key: each for key, each in stored.items() if each and each.startswith(envelopes.MAGIC_EACH)
        }
        if not sealed:
            return stored
        opened = self._opened([*map(self._of_state, sealed)], [*sealed.values()])
        return {**stored, **dict(zip(sealed, opened, strict=True))}

    def _of_state(self, key: bytes) -> str:
        return f"{self._name}/state/{key.hex()}"

    def _of_batch(self, number: int) -> str:
        return f"{self._name}/batch/{number}"

    def _of_entry(self, entry: Waiting) -> str:
        return f"{self._name}/{entry.kind}/{entry.seq}"

    def _sealed(self, names: Sequence[str], contents: Sequence[bytes]) -> list[bytes]:
        return envelopes.seal_each(self._keys.newest(STATES), STATES, names, contents)

    def _opened(self, names: Sequence[str], sealed: Sequence[bytes]) -> list[bytes]:
        return envelopes.unseal_each(self._secret, STATES, names, sealed)

    def _secret(self, key_id: str) -> bytes:
        """Return a data key's secret; that of the newest one is kept while the key service is away."""
        newest = self._keys.newest(STATES)
        return newest.secret if newest.id == key_id else self._keys.secrets([key_id])[0]


class _Inside:
    """`Erasure` of what is in the envelopes of a state."""

    def __init__(self, state: SealedState, erasure: Erasure) -> None:
        self._state = state
        self._erasure = erasure
        self.has = erasure.has

    def batch(self, record: BatchRecord) -> BatchRecord | None:
        number = record.before.batch + 1
        left = self._erasure.batch(self._state.opened_batch(number, record))
        return left and self._state.sealed_batch(number, left)

    def entry(self, entry: Waiting) -> Waiting | None:
        (opened,) = self._state.opened_entries([entry])
        left = self._erasure.entry(opened)
        return left and self._state.sealed_entry(left)


def _around(record: BatchRecord, envelope: bytes) -> BatchRecord:
    """Return what is in clear of a batch, for stores to add the states that expire."""
    return BatchRecord(record.before, record.until, {}, sealed=envelope)
