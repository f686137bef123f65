"""Beam in tests: slow workers, a job service, and the contents of a pipeline's pickles."""

from __future__ import annotations

import base64
import bz2
import json
import os
import pickletools
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kit.waiting import wait_until

_SLOW = """
import json, time
from pathlib import Path

def answers(request, chunks):
    for each in chunks:
        time.sleep(0.1)
        with open(json.loads(request)["calls"], "a") as calls:
            calls.write(".")
        yield json.dumps({"done": each})
"""


def slow_answers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """Make the module `slowly`, whose calls are counted; return the file with a character for each, and a request."""
    (folder / "slowly.py").write_text(_SLOW)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
    calls = folder / "calls"
    return calls, json.dumps({"calls": str(calls)})


@contextmanager
def beam_job_service(folder: Path) -> Iterator[str]:
    """Start Beam's own job service, with workers in processes of their own; yield the options that use it."""
    port = folder / "port"
    command = [sys.executable, "-m", "apache_beam.runners.portability.local_job_service_main"]
    with (folder / "service.log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--port_file", str(port), "--staging_dir", str(folder / "staging")], stderr=log
        )
    try:
        wait_until(lambda: port.exists() and port.read_text().strip(), "the job service listens", within_s=30)
        worker = f"{sys.executable} -m apache_beam.runners.worker.sdk_worker_main"
        yield (
            f"--runner=PortableRunner --job_endpoint=localhost:{port.read_text().strip()} "
            f"--environment_type=beam:env:harness_subprocess_python:v1 '--environment_config={worker}'"
        )
    finally:
        server.terminate()
        server.wait(30)


def beam_pickles(pipeline: Any) -> dict[str, set[str]]:
    """Return the names that unpickling each step's function would look up, by the step's name."""
    from apache_beam.portability.api import beam_runner_api_pb2

    found = {}
    for each in pipeline.to_runner_api().components.transforms.values():
        if each.spec.urn == "beam:transform:pardo:v1":
            sent = beam_runner_api_pb2.ParDoPayload.FromString(each.spec.payload).do_fn.payload
            found[each.unique_name] = _names(bz2.decompress(base64.b64decode(sent)))
    return found


def _names(pickled: bytes) -> set[str]:
    """Return MODULE.NAME of what a pickle looks up; texts that may be such names are among them."""
    texts, found = [""], set[str]()
    for operation, value, _ in pickletools.genops(pickled):
        if operation.name.endswith("UNICODE"):
            texts.append(str(value))
        elif operation.name == "STACK_GLOBAL":
            found.add(f"{texts[-2]}.{texts[-1]}")
        elif operation.name == "GLOBAL":
            found.add(str(value).replace(" ", "."))
    return found
