"""What tests of several suites share: one small project that was trained, made once a session."""

from __future__ import annotations

import gc
import itertools
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from kit import prefork
from kit.budget import account
from kit.compiled import compile_share
from kit.depot import MODEL, Depot, copied, lay_out
from kit.depth import DEEP
from kit.milvus_server import milvus_server  # noqa: F401  (a fixture)
from kit.object_store import s3_blobs, s3_server, s3_url  # noqa: F401  (fixtures)
from kit.once import made_once
from kit.prefork_client import umask
from kit.sagemaker_server import sagemaker, sagemaker_at  # noqa: F401  (fixtures)
from kit.servers import (  # noqa: F401  (fixtures)
    _stores,
    kafka_broker,
    kinesis_server,
    nats_server,
    online_stores,
    postgres_server,
    redis_server,
)

# The scripts of bench/ import each other by bare names. They come last on the path, so that they hide nothing.
sys.path.append(str(Path(__file__).parents[1] / "bench"))

# Nothing of a test gets into the keyring of who runs it.
os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.null.Keyring"

# A shell starts what runs in its background with SIGINT ignored, and children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is slow now and then: nothing is asserted on a time. In CI what is drawn is always the same.
for profile, default in (("gate", 12), ("deep", 100)):
    settings.register_profile(profile, settings.default, deadline=None, max_examples=default)
settings.load_profile("deep" if DEEP else "gate")


_UMASK = umask()  # a command that runs in this process narrows it, and other tests start servers as other users


class _LogRecord(logging.LogRecord):
    """A record that keeps the text of an error and not its frames.

    pytest keeps records to the end of a test, and so all that those frames use: a gateway that stops waited for it.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if isinstance(self.args, tuple):
            self.args = tuple(str(each) if isinstance(each, BaseException) else each for each in self.args)


logging.setLogRecordFactory(_LogRecord)


# Files with tests of 20 s and more, together less than the share of a worker of six.
LONGEST = {
    f"test_{name}.py": place
    for place, name in enumerate((
        "demo", "bad_input_training", "up_kill", "search_kill", "meshes", "training_on_machines", "trees_in_processes",
        "rollout_processes",
    ))
}  # fmt: skip

gc.disable()  # what is imported stays


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Let no collection of garbage go through modules and tests again: that would be half a second each time."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)  # tests make much garbage and little of it in cycles
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Let each worker compile a share of the files of tests, before all of them import all."""
    worker = getattr(session.config, "workerinput", None)
    if worker is not None:
        compile_share(session.config, int(worker["workerid"].removeprefix("gw")), worker["workercount"])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Restore the umask; keep what a module has imported from later collections: a gateway that stops makes several."""
    yield
    os.umask(_UMASK)
    if nextitem is not None and nextitem.path != item.path:
        gc.collect()
        gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Let a worker's words about reruns leave at once: Nagle's algorithm held them back for 40 ms a test."""
    prefork.BEGUN_WITH.update(os.environ)
    told = getattr(getattr(config, "failures_db", None), "sock", None)
    if told is not None:
        told.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: list[Any]) -> None:
    """Let the workers of a gate be forked from a process that has imported what each of them would import."""
    if os.environ.get("MAINSPRING_TESTS_WORKERS") == "forked":
        os.environ["PYTEST_XDIST_TESTRUNUID"] = config.pluginmanager.getplugin("dsession").nodemanager.testrunuid
        if prefork.suits(os.environ):
            for each in specs:
                each.python = str(prefork.worker())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let what fails by chance in a property test or a kill fail: `--reruns` is for slow machines alone.

    The longest come first, which one worker does while the others take the rest: at the end, those would wait for it.
    """
    items.sort(key=lambda item: LONGEST.get(item.path.name, len(LONGEST)))
    for item in items:
        if {"property", "death"} & {*item.path.parts}:
            item.add_marker(pytest.mark.flaky(reruns=0))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how a test failed that passed when it was run again, to make it steady; and what a budget was spent on."""
    for report in terminalreporter.stats.get("rerun", ()):
        terminalreporter.section(f"{report.nodeid} failed at first")
        terminalreporter.line(report.longreprtext[-10_000:])
    if budget_s := os.environ.get("MAINSPRING_TESTS_BUDGET_S"):
        terminalreporter.section("time of the tests")
        every = itertools.chain(*terminalreporter.stats.values())
        for line in account((each for each in every if isinstance(each, pytest.TestReport)), float(budget_s)):
            terminalreporter.line(line)


def _make(root: Path) -> dict[str, Any]:
    """Lay the project out and bring it to two versions, the first of which is champion. Return what was printed."""
    depot = lay_out(root)
    told = {"apply": depot.json("apply")}
    for source in ("posted", "scans", "deliveries"):
        told[f"ingest {source}"] = depot.json("ingest", source, f"{source}.csv")
    told["train"] = depot.json("train", MODEL)
    told["promote"] = depot.json("promote", MODEL)
    told["train again"] = depot.json("train", MODEL)
    told["materialize"] = depot.json("materialize")
    return told


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a trained project, to be copied and not used, and what the commands that made it printed."""
    return made_once(tmp_path_factory, "trained-depot", _make)


@pytest.fixture(scope="class")
def forked() -> Iterator[None]:
    """Programs of the package that a test's own process starts are forked (`kit.prefork`)."""
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(sys, "executable", str(prefork.programs() / "python"))
        yield


@pytest.fixture
def depot(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> Depot:
    """A trained project of the test's own."""
    return copied(trained[0], tmp_path / "depot")
