"""Shards that are split and merged, read by two workers of which one is killed: each key's messages stay in order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import boto3
import pytest

from kit.depth import examples
from kit.object_store import ENVIRONMENT
from kit.servers import KinesisServer
from kit.stream_endpoints import message
from kit.visits import NOW
from mainspring.core.time import format_instant
from mainspring.data.adapters.log_kinesis import KinesisLog
from mainspring.data.streams.model import NewMessage

VICTIM = Path(__file__).parent / "reshard_victim.py"
KEYS, MESSAGES = 9, 54


@pytest.mark.parametrize("what", examples(gate=["land"], deep=["land", "score"]))
@pytest.mark.parametrize("step", examples(gate=[2], deep=[1, 2, 3]))
def test_order_by_key_over_splits_and_merges(
    what: str, step: int, tmp_path: Path, kinesis_server: KinesisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    log, topic = KinesisLog(kinesis_server.url), f"reshard-{uuid4().hex}"
    log.create(f"{topic}-out")
    log.create(topic, 1)
    for number in range(3):
        made = [_message(what, each) for each in range(number * MESSAGES // 3, (number + 1) * MESSAGES // 3)]
        log.produce(topic, made)
        if number == 0:
            log.create(topic, 2)
        elif number == 1:
            _merge(kinesis_server, topic)
    assert log.parents(topic) == {1: (0,), 2: (0,), 3: (1, 2)}
    log.close()
    found = _victim(what, kinesis_server.url.text, topic, str(MESSAGES), str(tmp_path), str(step))
    assert found["statuses"] in ([signal.SIGKILL, 0], [0, 0])
    assert found["statuses"][0] or step > 2  # each worker has a shard of two reads at least
    assert {key: len(numbers) for key, numbers in found["found"].items()} == {
        _key(number): len(range(number, MESSAGES, KEYS)) for number in range(KEYS)
    }
    for key, numbers in found["found"].items():
        assert numbers == sorted(numbers), f"{key} after a kill at read {step}"


def _key(number: int) -> str:
    return f"card-{number % KEYS}"  # by whose hashes the halves of a shard are alike


def _message(what: str, number: int) -> NewMessage:
    key = _key(number)
    if what == "score":
        return message(number, key, id=number)
    row = {"visit": number, "shop": key, "spent": 1.0, "came_at": format_instant(NOW), "known_at": format_instant(NOW)}
    return NewMessage(json.dumps(row).encode(), key.encode())


def _merge(server: KinesisServer, topic: str) -> None:
    client = boto3.client("kinesis", region_name="eu-central-1", endpoint_url=f"http://127.0.0.1:{server.port}")
    shards = ("shardId-000000000001", "shardId-000000000002")
    client.merge_shards(StreamName=topic, ShardToMerge=shards[0], AdjacentShardToMerge=shards[1])
    client.close()


def _victim(*arguments: str) -> dict[str, dict[str, list[int]]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(VICTIM.parents[1]), *sys.path])}
    command = [sys.executable, str(VICTIM), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, list[int]]] = json.loads(done.stdout.splitlines()[-1])
    return found
