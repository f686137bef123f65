"""The cost of encryption at rest, by store: processor time of one thread against its floor.

Envelopes against AES-256-GCM alone, with one key and without a record's name; personal values of a prediction against
the same values in MessagePack and AES-256-GCM; a batch of a compaction under its subjects' keys, against opening and
encrypting each under one key; data keys wrapped and unwrapped by files, against AES-256-GCM; states of an online store
in memory, against AES-256-GCM and the same store; values of a lake's column written and read, against AES-256-GCM and
the same lake in memory; and so a bundle.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow as pa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mainspring.core.time import SystemClock
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ports import LakeTables
from mainspring.data.sealed import SealedLake
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.adapters.sealed import SealedOnlineStore
from mainspring.features.model import EntityState
from mainspring.ledger.sealing import Opener, Sealer
from mainspring.project.catalog import memory_catalog
from mainspring.registry.adapters.memory import MemoryBlobs
from mainspring.registry.adapters.sealed import SealedBlobs
from mainspring.security import envelopes
from mainspring.security.adapters.data_keys import CatalogSubjectKeys
from mainspring.security.adapters.key_file import FileKeys
from mainspring.security.data_keys import OneKey
from mainspring.security.subject_keys import SubjectKeys
from report import Case

ROUNDS, DIGEST = 5, "0" * 64


def seconds(action: Callable[[], object]) -> float:
    """Return the processor time of an action."""
    begun = time.thread_time()
    action()
    return time.thread_time() - begun


def _rate(what: str, mebibytes: int, ours: Callable[[], object], floor: Callable[[], object]) -> Case:
    best = [min(seconds(each) for _ in range(ROUNDS)) for each in (ours, floor)]
    return Case(what, "MiB/s", *(round(mebibytes / each) for each in best), more_is_better=True)


def _each(what: str, rows: int, ours: Callable[[], object], floor: Callable[[], object]) -> Case:
    best = [min(seconds(each) for _ in range(ROUNDS)) for each in (ours, floor)]
    return Case(what, "µs", *(round(each / rows * 1e6, 2) for each in best))


def encryption(mebibytes: int, rows: int) -> list[Case]:
    """Measure envelopes, the personal values of predictions, and keys."""
    keys, bare = OneKey(), AESGCM(bytes(32))
    key, content, nonce = keys.newest(""), os.urandom(mebibytes << 20), bytes(12)
    sealed, ciphertext = envelopes.seal(key, "bench", "one", content), bare.encrypt(nonce, content, b"")
    cases = [
        _rate(f"{mebibytes} MiB encrypted", mebibytes, lambda: envelopes.seal(key, "bench", "one", content),
              lambda: bare.encrypt(nonce, content, b"")),
        _rate(f"{mebibytes} MiB decrypted", mebibytes, lambda: envelopes.unseal(key.secret, "bench", "one", sealed),
              lambda: bare.decrypt(nonce, ciphertext, b"")),
    ]  # fmt: skip
    values = {"keys": {}, "request": {}, "features": {"Person.email": "ana@example.org", "Person.age": 41}}
    sealer, opener, encode = Sealer(keys), Opener(keys), msgspec.msgpack.Encoder().encode
    ids = [f"{number:026d}" for number in range(rows)]
    of_log, encoded = [sealer.seal(id_, values) for id_ in ids], bare.encrypt(nonce, encode(values), b"id")
    cases += [
        _each("a prediction's values encrypted", rows, lambda: [sealer.seal(id_, values) for id_ in ids],
              lambda: [bare.encrypt(nonce, encode(values), b"id") for _ in ids]),
        _each("a prediction's values decrypted", rows, lambda: opener.open_all(ids, of_log),
              lambda: [msgspec.msgpack.decode(bare.decrypt(nonce, encoded, b"id")) for _ in ids]),
    ]  # fmt: skip

    def under_subjects(people: int) -> object:
        subjects = SubjectKeys(lambda: store, keys, Path(folder) / "erased", SystemClock())
        plain = [{"person": number % people} for number in range(rows)]
        return Opener(keys, subjects=subjects).resealed(ids, plain, of_log)

    def under_one() -> object:
        opened = opener.open_all(ids, of_log)
        return [sealer.seal(id_, each or {}) for id_, each in zip(ids, opened, strict=True)]

    with tempfile.TemporaryDirectory() as folder:
        store = CatalogSubjectKeys(memory_catalog())
        for people in (rows // 10, rows):
            under_subjects(people)  # makes their keys
            cases.append(
                _each(f"a row under the keys of {people} subjects", rows, lambda many=people: under_subjects(many),
                      under_one)
            )  # fmt: skip
        service, contexts = FileKeys(Path(folder) / "master"), ids
        secrets = [os.urandom(32) for _ in ids]
        wrapped, floor = service.wrap(secrets, contexts), [bare.encrypt(nonce, each, b"") for each in secrets]
        cases += [
            _each("a data key wrapped, files", rows, lambda: service.wrap(secrets, contexts),
                  lambda: [bare.encrypt(nonce, each, b"") for each in secrets]),
            _each("a data key unwrapped, files", rows, lambda: service.unwrap(wrapped, contexts),
                  lambda: [bare.decrypt(nonce, each, b"") for each in floor]),
        ]  # fmt: skip
    return cases


def states(rows: int) -> list[Case]:
    """Measure states of an online store, as many at once and one by one."""
    bare, nonce, plain = AESGCM(bytes(32)), bytes(12), MemoryOnlineStore()
    sealed = SealedOnlineStore(MemoryOnlineStore(), OneKey())
    held = [(b"%d" % number, EntityState(1, os.urandom(200))) for number in range(rows)]
    wanted = [("view", key) for key, _ in held]

    def write() -> None:
        plain.write("view", [(key, EntityState(1, bare.encrypt(nonce, each.payload, key))) for key, each in held])

    def read(asked: list[tuple[str, bytes]]) -> None:
        for (_, key), payload in zip(asked, plain.payloads(asked), strict=True):
            bare.decrypt(nonce, payload or b"", key)

    return [
        _each("a state written, of many", rows, lambda: sealed.write("view", held), write),
        _each("a state read, of many", rows, lambda: sealed.payloads(wanted), lambda: read(wanted)),
        _each("a state read alone", rows, lambda: [sealed.payloads([each]) for each in wanted],
              lambda: [read([each]) for each in wanted]),
    ]  # fmt: skip


def columns(rows: int) -> list[Case]:
    """Measure values of an encrypted column of the lake."""
    bare, nonce, schema = AESGCM(bytes(32)), bytes(12), pa.schema([pa.field("email", pa.string())])
    values = [f"person{number}@example.org" for number in range(rows)]
    plain, sealed = MemoryLake(), SealedLake(MemoryLake(), OneKey(), lambda _, __: ("email",))
    encrypted = [bare.encrypt(nonce, each.encode(), b"") for each in values]

    def write(lake: LakeTables) -> None:
        lake.replace("people", pa.table({"email": values}, schema=schema).to_batches(), schema, key=os.urandom(8).hex())

    def written() -> None:
        write(plain)
        for each in values:
            bare.encrypt(nonce, each.encode(), b"")

    def read() -> None:
        plain.scan("people")
        pa.array([bare.decrypt(nonce, each, b"").decode() for each in encrypted])

    write(plain)
    return [
        _each("a value of the lake written", rows, lambda: write(sealed), written),
        _each("a value of the lake read", rows, lambda: sealed.scan("people"), read),
    ]


def bundles(mebibytes: int) -> list[Case]:
    """Measure a bundle in a store in memory."""
    bare, nonce, held = AESGCM(bytes(32)), bytes(12), MemoryBlobs()
    sealed, files = SealedBlobs(MemoryBlobs(), OneKey(), encrypt=True), {"model.onnx": os.urandom(mebibytes << 20)}

    def put() -> None:
        held.put(DIGEST, {name: bare.encrypt(nonce, each, name.encode()) for name, each in files.items()})

    def get() -> None:
        for name, each in held.get(DIGEST).items():
            bare.decrypt(nonce, each, name.encode())

    return [
        _rate(f"a bundle of {mebibytes} MiB put", mebibytes, lambda: sealed.put(DIGEST, files), put),
        _rate(f"a bundle of {mebibytes} MiB got", mebibytes, lambda: sealed.get(DIGEST), get),
    ]


def at_rest(mebibytes: int, rows: int) -> list[Case]:
    """Measure envelopes, and then each store that has them."""
    return [*encryption(mebibytes, rows), *states(rows), *columns(rows), *bundles(mebibytes)]
