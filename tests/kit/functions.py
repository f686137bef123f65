"""A project of two plain functions, a champion and a candidate, behind one endpoint; and callers of it."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kit.depot import Depot
from kit.load import REST_S
from kit.waiting import wait_until

TOML = """\
name = "shop"
modules = ["shop.service"]

[profiles.local]
"""
SERVICE = """\
import mainspring as ms

ms.Endpoint("fraud", model="fraud@champion", deadline="30s")
"""
GOOD = """\
import numpy as np


def score(x):
    return 1 / (1 + np.exp(-x))
"""
GOLDEN = '{"inputs": {"x": [[-1.5], [-0.5]]}}'  # rows on which its author tried it


@dataclass
class Load:
    """Requests to an endpoint, one after another in each of two threads, and what became of each.

    Attributes:
        pause_s: Time that a thread rests after each request.
    """

    port: int
    key: str
    endpoint: str = "fraud"
    pause_s: float = REST_S
    answers: list[tuple[float, int, str]] = field(default_factory=list)  # when, status, version
    lost: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, seed: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        number = seed
        while not self.stop.is_set():
            number = (number * 48271) % 2147483647
            value = 6.0 * number / 2147483647 - 3.0
            body = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [value]}]}
            try:
                connection.request(
                    "POST",
                    f"/v2/models/{self.endpoint}/infer",
                    json.dumps(body),
                    {"Authorization": f"Bearer {self.key}"},
                )
                reply = connection.getresponse()
                document = json.loads(reply.read())
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.lost.append(repr(error))
                connection.close()
                continue
            self.answers.append((time.monotonic(), reply.status, str(document.get("model_version", ""))))
            self.stop.wait(self.pause_s)
        connection.close()

    def until_answered(self, more: int) -> None:
        """Wait for so many more answers."""
        wanted = len(self.answers) + more
        wait_until(lambda: len(self.answers) >= wanted, f"{more} answers")

    @contextmanager
    def going(self) -> Iterator[None]:
        threads = [threading.Thread(target=self.run, args=(seed,)) for seed in (11, 1_000_003)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stop.set()
            for thread in threads:
                thread.join()


def shop(root: Path, rollout: str, *candidates: str) -> Depot:
    """Return a project with a good champion and other versions, from 2, which were tried on two rows.

    Args:
        rollout: The declaration of its rollout.
        candidates: The module of each other version, with a function `score`.
    """
    package = root / "shop"
    package.mkdir(parents=True)
    (root / "mainspring.toml").write_text(TOML)
    (root / "golden.json").write_text(GOLDEN)
    for name, content in (("__init__", ""), ("service", SERVICE + rollout), ("good", GOOD)):
        (package / f"{name}.py").write_text(content)
    depot = Depot(root)
    tensors = ("--input", "x:FP32:-1,1", "--output", "p:FP32:-1,1")
    depot.json("models", "function", "fraud", "shop.good:score", *tensors, "--alias", "champion")
    for number, content in enumerate(candidates, 2):
        (package / f"other{number}.py").write_text(content)
        depot.json("models", "function", "fraud", f"shop.other{number}:score", *tensors, "--golden", "golden.json")
    depot.json("apply")
    return depot


def processes_of(module: str, root: Path) -> list[int]:
    """Return the processes that run a module for a project."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if module in words and str(root) in words:
            found.append(int(place.name))
    return found
