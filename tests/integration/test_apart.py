"""Models whose cost the values of a request decide: they hold nobody up, and end."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from kit.serving import KEY, NOW, route
from kit.tensors import allocated, counted, sums
from mainspring.core.errors import Corrupt
from mainspring.core.time import ManualClock
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.ledger.adapters.memory import MemoryLedger
from mainspring.project.catalog import memory_catalog
from mainspring.registry.adapters.memory import MemoryBlobs
from mainspring.registry.bundles import Bundles
from mainspring.serving.adapters.apart import SessionApart
from mainspring.serving.adapters.catalog import CatalogRoutes
from mainspring.serving.adapters.onnx import OnnxExecutor
from mainspring.serving.adapters.sessions import CallLimits, open_session
from mainspring.serving.model import Arm
from mainspring.serving.plane.executor import ModelFailed
from mainspring.serving.plane.inference import infer
from mainspring.serving.plane.lane import monotonic_us
from mainspring.serving.plane.plane import DataPlane
from mainspring.serving.protocol.codec import decode_infer, encode

ENDLESS = np.array([[2**40]], np.int64)
FEW = np.array([[1], [5]], np.int64)


def children() -> list[int]:
    own = f"\0{SessionApart.__module__}\0".encode()
    found = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            for pid in (task / "children").read_text().split():
                with suppress(FileNotFoundError, ProcessLookupError):
                    if own in Path(f"/proc/{pid}/cmdline").read_bytes():
                        found.append(int(pid))
    return found


def test_a_call_that_does_not_end_is_stopped_and_the_next_is_answered() -> None:
    executor = OnnxExecutor(counted(KEY), limits=CallLimits(seconds=2.0))
    assert not executor.inline
    with pytest.raises(ModelFailed, match="stopped: it ran for 2 s"):
        executor.predict({"n": ENDLESS}, 1)
    assert executor.predict({"n": FEW}, 2)["y"].tolist() == [[1.0], [5.0]]
    executor.close()
    assert not children()


def test_memory_of_a_call_ends_where_the_limit_is() -> None:
    executor = OnnxExecutor(allocated(KEY), limits=CallLimits(memory_bytes=256 << 20))
    with pytest.raises(ModelFailed):
        executor.predict({"n": np.array([[25 * 10**9]], np.int64)}, 1)  # 100 GB
    with pytest.raises(ModelFailed):
        executor.predict({"n": np.array([[10**8]], np.int64)}, 1)  # 400 MB
    assert executor.predict({"n": FEW}, 2)["y"].tolist() == [[1.0], [5.0]]
    executor.close()


def test_the_process_is_told_no_secret_and_is_in_no_folder_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAINSPRING_CATALOG", "postgresql://user:password@host/db")
    executor = OnnxExecutor(counted(KEY))
    (child,) = children()
    assert b"password" not in Path(f"/proc/{child}/environ").read_bytes()
    assert str(Path(f"/proc/{child}/cwd").readlink()) == "/"
    executor.close()


def test_a_model_that_does_not_load_says_so() -> None:
    with pytest.raises(Corrupt, match="does not load"):
        SessionApart(b"no model", "bundle", threads=1, limits=CallLimits())
    assert not children()


def test_a_call_in_this_process_is_stopped_too() -> None:
    """For models that no analysis finds: the runtime ends between two nodes."""
    session = open_session(counted(KEY).files["model.onnx"], "bundle", limits=CallLimits(seconds=1.2))
    with pytest.raises(ModelFailed, match=r"ran for 1\.2 s"):
        session.run(["y"], {"n": ENDLESS})

    async def on_an_event_loop() -> None:
        session.run(["y"], {"n": ENDLESS})

    with pytest.raises(ModelFailed, match="ran for 1 s"):
        asyncio.run(on_an_event_loop())
    assert session.run(["y"], {"n": FEW})[0].tolist() == [[1.0], [5.0]]


def test_an_endless_call_does_not_hold_the_event_loop() -> None:
    """Another model answers on it meanwhile."""
    bundles, routes = Bundles(MemoryBlobs(), KEY.public), CatalogRoutes(memory_catalog())
    made = {"counted": counted(KEY), "sums": sums(KEY)}
    for each in made.values():
        bundles.save(each)
    routes.publish([route(Arm("1", each.digest, 1.0), endpoint=name) for name, each in made.items()])

    async def ask(plane: DataPlane, endpoint: str, datatype: str, row: list[float]) -> object:
        name = next(iter(made[endpoint].manifest.tensors)).name
        tensor = {"name": name, "datatype": datatype, "data": row, "shape": [1, len(row)]}
        asked = decode_infer(encode({"inputs": [tensor]})).asked
        return await infer(asked, plane.endpoint(endpoint), version="", principal="", received_us=monotonic_us())

    async def run() -> None:
        plane = DataPlane(
            routes=routes, bundles=bundles, online=MemoryOnlineStore(), log=MemoryLedger(), clock=ManualClock(NOW),
            executors=lambda bundle: OnnxExecutor(bundle, limits=CallLimits(seconds=60.0)), threads=1,
        )  # fmt: skip
        plane.start()
        await plane.preloaded()
        held = asyncio.ensure_future(ask(plane, "counted", "INT64", [2**40]))
        for _ in range(3):
            await ask(plane, "sums", "FP32", [1, 2, 3, 4])
        assert not held.done()
        for child in children():
            os.kill(child, signal.SIGKILL)
        with pytest.raises(ModelFailed, match="crashed"):
            await held
        await plane.stop()

    asyncio.run(run())
