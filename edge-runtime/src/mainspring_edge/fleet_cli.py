"""`mainspring-edge key` and `mainspring-edge run`: a device of a fleet."""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
import threading
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mainspring_edge.errors import EdgeError, Refused
from mainspring_edge.memory import device_key

BROKER = "MAINSPRING_EDGE_BROKER"  # with the device's password, which the setup does not hold


def add_commands(commands: Any) -> None:
    """Add both to the parsers of `mainspring-edge`."""
    key = commands.add_parser("key", help="print this device's public key, made at the first call")
    run = commands.add_parser("run", help="predict rows from standard input, and update, report and upload meanwhile")
    for each in (key, run):
        each.add_argument("folder", type=Path, help="the folder of this device")
    run.add_argument("--setup", type=Path, required=True, help="the file that `mainspring edge register` wrote")


def print_key(given: Namespace) -> int:
    """Print the key with which `mainspring edge register` knows this device."""
    print(device_key(given.folder).public_key().public_bytes_raw().hex())
    return 0


def run(given: Namespace) -> int:
    """Run until standard input ends or a signal says to stop."""
    from mainspring_edge.agent import Agent
    from mainspring_edge.runtime import load

    agent = Agent(given.folder, read_setup(given.setup, os.environ), load)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    thread = threading.Thread(target=agent.run, args=(stop,), daemon=True)
    thread.start()
    try:
        for line in sys.stdin:
            if line.strip():
                _predict(agent, line)
    finally:
        stop.set()
        thread.join(timeout=60.0)
    return 0


def read_setup(path: Path, environment: Mapping[str, str]) -> Any:
    """Return a setup from its file; the environment may name the broker with a password.

    Raises:
        Refused: It cannot be read.
    """
    from mainspring_edge.agent import Setup

    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        root = base64.b64decode(found.pop("root"), validate=True)
        return Setup(**{**found, "root": root, "broker": environment.get(BROKER, found["broker"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused("format", f"The setup {path} cannot be read: {error}.") from None


def _predict(agent: Any, line: str) -> None:
    try:
        answer: dict[str, Any] = agent.predict([json.loads(line)])
    except (EdgeError, ValueError) as error:
        answer = {"error": str(error)}
    else:
        answer = {name: values[0] for name, values in answer.items()}
    print(json.dumps(answer), flush=True)
