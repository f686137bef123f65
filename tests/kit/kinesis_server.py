"""Moto's Kinesis over HTTP, mended where it is not as Amazon's: `python kinesis_server.py PORT`.

Moto moves the records of a shard that is split into its children, writes to closed shards, never ends a closed one,
loses records of producers that write at once, and numbers records without gaps.

A test makes it misbehave by a post to `/-/`: `trim` removes the first records of a shard, `age` makes them old, `pages`
gives few records at a time and none every second time, `refuse` lets the next records of calls fail, `busy` calls;
`linger` gives iterators for some calls behind the end of closed shards; `expire` ends all iterators.
"""

from __future__ import annotations

import datetime
import json
import sys
import threading
import time
from typing import Any

from moto.core.exceptions import JsonRESTError
from moto.kinesis import models, utils
from moto.kinesis.exceptions import InvalidArgumentError
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

_lock = threading.RLock()
_refused: list[int] = []  # of one call each: how many of its records, from its second one, are refused
_busy = [0]  # calls that are refused as a whole
_linger = [0]  # calls behind the end of closed shards that still give an iterator
_pages = [10_000, 0]  # records of a page; number of pages given
_put, _get = models.KinesisBackend.put_records, models.KinesisBackend.get_records
_iterate = models.KinesisBackend.get_shard_iterator


_live: set[str] = set()  # iterators


def _numbered(stream: models.Stream) -> int:
    return max(each._shard_id for each in stream.shards.values()) + 1


def _child(stream: models.Stream, first: int, last: int, parents: list[models.Shard]) -> None:
    names = [each.shard_id for each in parents]
    shard = models.Shard(_numbered(stream), first, last, *names)
    stream.shards[shard.shard_id] = shard
    for each in parents:
        each.is_open = False


def _split(stream: models.Stream, name: str, middle: str) -> None:
    shard = stream.shards[name]
    for first, last in ((shard.starting_hash, int(middle) - 1), (int(middle), shard.ending_hash)):
        _child(stream, first, last, [shard])


def _merge(stream: models.Stream, one: str, other: str) -> None:
    shards = [stream.shards[one], stream.shards[other]]
    _child(stream, shards[0].starting_hash, shards[1].ending_hash, shards)


def _shard_for(stream: models.Stream, key: str, explicit: str | None) -> models.Shard:
    number = int(explicit) if explicit else int(_md5(key), 16)
    return next(each for each in stream.shards.values() if each.is_open and number <= each.ending_hash
                and number >= each.starting_hash)  # fmt: skip


def _md5(key: str) -> str:
    return str(models.md5_hash(key.encode()).hexdigest())


def _put_record(shard: models.Shard, key: str, data: str, explicit: str) -> str:
    number = shard.last = getattr(shard, "last", 2) + 16
    shard.records[number] = models.Record(key, data, number, explicit)
    return str(number)


def _get_iterator(backend: Any, arn: Any, name: str, shard: str, kind: str, number: str | None, at: Any) -> str:
    if number is not None and int(number) % 16 != 2:
        raise InvalidArgumentError(f"StartingSequenceNumber {number} is invalid")
    iterator = str(_iterate(backend, arn, name, shard, kind, number, at))
    _live.add(iterator)
    return iterator


def _put_records(backend: Any, arn: Any, name: Any, records: list[dict[str, Any]]) -> dict[str, Any]:
    with _lock:
        _raise_if_busy()
        count = _refused.pop(0) if _refused else 0
        failed = range(1, 1 + count)
        told = _put(backend, arn, name, [each for place, each in enumerate(records) if place not in failed])
        for place in failed[: len(records) - 1]:
            told["Records"].insert(
                place, {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "Rate exceeded"}
            )
        return told


def _get_records(backend: Any, arn: Any, iterator: str, limit: Any) -> tuple[str | None, list[Any], int]:
    with _lock:
        _raise_if_busy()
        if iterator not in _live:
            raise JsonRESTError("ExpiredIteratorException", "Iterator expired")
        most, _pages[1] = _pages[0], _pages[1] + 1
        if most < 10_000 and _pages[1] % 2:
            return iterator, [], 1
        after, records, _ = _get(backend, arn, iterator, min(most, limit or most))
        _live.add(after)
        stream, name, last = utils.decompose_shard_iterator(after)
        shard = backend.streams[stream].shards[name]
        if not records or int(last) >= shard.get_max_sequence_number():
            goes_on = shard.is_open or _linger[0] > 0
            _linger[0] -= not shard.is_open
            return after if goes_on else None, records, 0
        return after, records, max(1, int(1_000 * (time.time() - records[-1].created_at)))


def _raise_if_busy() -> None:
    if _busy[0]:
        _busy[0] -= 1
        raise JsonRESTError("ProvisionedThroughputExceededException", "Rate exceeded")


def _shard(stream: str, shard: int) -> Any:
    [backend] = [each for by in models.kinesis_backends.values() for each in by.values() if stream in each.streams]
    return backend.streams[stream].shards[f"shardId-{shard:012}"]


def _trim(stream: str, shard: int, before: int) -> None:
    held = _shard(stream, shard)
    held.records = {number: each for number, each in held.records.items() if number >= before}


def _age(stream: str, shard: int, ages_s: list[float]) -> None:
    for record, age_s in zip(_shard(stream, shard).records.values(), ages_s, strict=True):
        record.created_at -= age_s
        record.created_at_datetime -= datetime.timedelta(seconds=age_s)


def main(port: int) -> None:
    models.Stream.split_shard = _split
    models.Stream.merge_shards = _merge
    models.Stream.get_shard_for_key = _shard_for
    models.Shard.put_record = _put_record
    models.KinesisBackend.get_shard_iterator = _get_iterator
    models.KinesisBackend.put_records = _put_records
    models.KinesisBackend.get_records = _get_records
    moto = DomainDispatcherApplication(create_backend_app)

    def application(environ: dict[str, Any], start: Any) -> Any:
        path = environ["PATH_INFO"]
        if not path.startswith("/-/"):
            return moto(environ, start)
        given = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        with _lock:
            if path == "/-/trim":
                _trim(*given)
            elif path == "/-/age":
                _age(*given)
            elif path == "/-/refuse":
                _refused[:] = given
            elif path == "/-/expire":
                _live.clear()
            elif path == "/-/linger":
                _linger[0] = given
            elif path == "/-/pages":
                _pages[0] = given
            else:
                _busy[0] = given
        start("200 OK", [])
        return [b""]

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_request(self, *_: Any) -> None:
            pass

    make_server("127.0.0.1", port, application, threaded=True, request_handler=Quiet).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
