"""Moto's S3 server as a process of its own, for tests: a bucket a test, and credentials in the environment."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from mainspring.core.settings import Url
from mainspring.registry.adapters.objects import ObjectBlobs, open_objects

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_START_S = 60
SERVER = """
import threading
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print("%s:%s" % server.get_host_and_port(), flush=True)
threading.Event().wait()
"""


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 server, `http://127.0.0.1:port`."""
    log = tmp_path_factory.mktemp("s3") / "log"
    with log.open("wb") as told:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, stderr=told, env={**os.environ, **ENVIRONMENT}
        )
    assert process.stdout is not None
    try:
        place = process.stdout.readline().decode().strip()
        if not place:
            raise RuntimeError(f"moto does not start:\n{log.read_text()[-2000:]}")
        _wait(f"http://{place}", log)
        yield f"http://{place}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _wait(endpoint: str, log: Path) -> None:
    end = time.monotonic() + _START_S
    while True:
        try:
            with urllib.request.urlopen(f"{endpoint}/moto-api/", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > end:
                raise RuntimeError(f"moto does not answer:\n{log.read_text()[-2000:]}") from None
            time.sleep(0.05)


def new_bucket(endpoint: str) -> Url:
    """Make a bucket and return the address of bundles in it."""
    bucket = f"bundles-{uuid4().hex[:12]}"
    made = urllib.request.Request(f"{endpoint}/{bucket}", data=b"", method="PUT")
    with urllib.request.urlopen(made, timeout=30):
        return Url(f"s3://{bucket}/some/prefix?endpoint={endpoint}&region=us-east-1")


@pytest.fixture
def s3_url(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Url:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return new_bucket(s3_server)


@pytest.fixture
def s3_blobs(s3_url: Url) -> ObjectBlobs:
    return open_objects(s3_url)
