"""Conformance suite of step runners. Derive a test class and provide its fixtures.

The steps are in the project's module `steps`, whose text is `STEPS`. They write beside it what they do, so the folder
must be one that the engine's machines share with the tests.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.ids import new_id
from mainspring.core.time import SECOND, SystemClock
from mainspring.jobs.model import JobStopped, NewJob, Renewal
from mainspring.jobs.pipelines.ports import StepCall, StepRunner
from mainspring.jobs.ports import JobStore
from mainspring.jobs.runner import JobRun

STEPS = '''
"""Steps of the conformance suite."""
import os
import subprocess
import sys
import time
from pathlib import Path

import mainspring as ms
from mainspring.core.errors import Invalid

HERE = Path(__file__).parent
BEAT = "while :; do printf . >> beats; sleep 0.05; done"


@ms.step
def echo(value, run, *, other=None):
    return [value, other, bool(run.id)]


@ms.step
def talk(word):
    print("said", word)
    print("warned", word, file=sys.stderr)
    subprocess.run(["echo", "called", word], check=True)


@ms.step
def refuse():
    raise Invalid("There is no shop 7.", fix="name another shop.")


@ms.step
def fail(word):
    print("about to fail", flush=True)
    raise ValueError(f"{word} is bad")


@ms.step
def die():
    os._exit(3)


@ms.step
def unplain():
    return {1, 2}


@ms.step
def beat(spark=None):
    """Write for ever: by a process, and by this one, or with Spark by one of its tasks."""
    path = str(HERE / "beats")

    def write(_):
        import time

        while True:
            with open(path, "a") as beats:
                beats.write(":")
            time.sleep(0.05)

    subprocess.Popen(["sh", "-c", BEAT], cwd=HERE)
    write(0) if spark is None else spark.sparkContext.parallelize([0], 1).foreach(write)


@ms.step
def meet(mine, other):
    (HERE / mine).touch()
    until = time.monotonic() + 120
    while not (HERE / other).exists():
        assert time.monotonic() < until, "nobody came"
        time.sleep(0.02)
    return mine
'''
E = TypeVar("E", bound=MainspringError)
_LEASE = 600 * SECOND
_SILENCE_S = 0.6  # of a step that would write every 50 ms
_LONG_S = 120.0  # until which the suite waits for what happens at once on an idle machine


def _until(found: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + _LONG_S
    while not found():
        assert time.monotonic() < until, what
        time.sleep(0.05)


class StepRunnerConformance:
    """Needs the fixtures `runner`, `store`, a job store, and `folder`, the project's, with `STEPS` as `steps.py`.

    `timeout` is a time (s) in which the engine usually starts a step. All tests may share the fixtures.
    """

    timeout = 4

    def test_a_result_comes_back_as_json(self, runner: StepRunner, store: JobStore, folder: Path) -> None:
        value = {"a": [1, 2.5, None, True, "$(HOME) $x 'ü\n\0"], "": {"b": (2**70, -0.5)}}
        found = _run(runner, store, folder, "echo", value=value, other="x" * 300_000)
        assert found == [{**value, "": {"b": [2**70, -0.5]}}, "x" * 300_000, True]

    def test_what_json_cannot_represent_is_final(self, runner: StepRunner, store: JobStore, folder: Path) -> None:
        assert "is a set" in str(_refused(Invalid, runner, store, folder, "unplain"))

    def test_invalid_is_final_and_tells_the_fix(self, runner: StepRunner, store: JobStore, folder: Path) -> None:
        error = str(_refused(Invalid, runner, store, folder, "refuse"))
        assert "There is no shop 7." in error
        assert "name another shop." in error

    def test_a_step_that_is_gone_is_final(self, runner: StepRunner, store: JobStore, folder: Path) -> None:
        _refused(Invalid, runner, store, folder, "nothing")

    def test_inputs_that_it_does_not_take_are_final(self, runner: StepRunner, store: JobStore, folder: Path) -> None:
        assert "does not take" in str(_refused(Invalid, runner, store, folder, "echo", wrong=1))

    def test_any_other_error_is_not_final(self, runner: StepRunner, store: JobStore, folder: Path) -> None:
        (folder / "fail.log").unlink(missing_ok=True)
        error = _refused(MainspringError, runner, store, folder, "fail", word="fold 3")
        assert not isinstance(error, Invalid)
        assert "ValueError: fold 3 is bad" in str(error)
        log = folder / "fail.log"
        _until(lambda: "Traceback" in _text(log) and "about to fail" in _text(log), "the log has no traceback")

    def test_a_process_that_dies_is_not_final(self, runner: StepRunner, store: JobStore, folder: Path) -> None:
        error = _refused(MainspringError, runner, store, folder, "die")
        assert not isinstance(error, (Invalid, JobStopped))
        assert _run(runner, store, folder, "echo", value=1)[0] == 1

    def test_the_log_has_both_outputs_and_those_of_processes(
        self, runner: StepRunner, store: JobStore, folder: Path
    ) -> None:
        (folder / "talk.log").unlink(missing_ok=True)
        for word in ("one", "two"):
            assert _run(runner, store, folder, "talk", word=word) is None
        lines = [f"{did} {word}" for word in ("one", "two") for did in ("said", "warned", "called")]
        log = folder / "talk.log"
        _until(lambda: all(line in _text(log) for line in lines), "the log lacks lines")
        assert sum(_text(log).count(line) for line in lines) == len(lines)
        assert log.stat().st_mode & 0o077 == 0

    def test_a_step_that_takes_too_long_is_ended(self, runner: StepRunner, store: JobStore, folder: Path) -> None:
        (folder / "beats").unlink(missing_ok=True)
        attempt = _attempt(store, timeout_us=self.timeout * SECOND)
        error = _stopped_by(MainspringError, runner, _call(folder, "beat"), attempt)
        assert not isinstance(error, (Invalid, JobStopped))
        assert f"{self.timeout}s" in str(error)
        _check_silent(folder)

    def test_a_step_that_is_told_to_stop_has_ended(self, runner: StepRunner, store: JobStore, folder: Path) -> None:
        for why in (Renewal.CANCELLING, Renewal.LOST, None):
            (folder / "beats").unlink(missing_ok=True)
            attempt = _attempt(store, lambda why=why: why if _began(folder) else Renewal.HELD)  # type: ignore[misc]
            stopped = _stopped_by(JobStopped, runner, _call(folder, "beat"), attempt)
            assert stopped.why is why
            assert _began(folder)
            _check_silent(folder)
        assert _run(runner, store, folder, "echo", value=1)[0] == 1

    def test_two_run_at_once(self, runner: StepRunner, store: JobStore, folder: Path) -> None:
        for name in ("ana", "bob"):
            (folder / name).unlink(missing_ok=True)
        with ThreadPoolExecutor(2) as pool:
            ana = pool.submit(_run, runner, store, folder, "meet", mine="ana", other="bob")
            bob = pool.submit(_run, runner, store, folder, "meet", mine="bob", other="ana")
            assert (ana.result(), bob.result()) == ("ana", "bob")


def _began(folder: Path) -> bool:
    return {".", ":"} <= set(_text(folder / "beats"))


def _check_silent(folder: Path) -> None:
    """Check that neither the step nor the process that it started writes any more."""
    before = _text(folder / "beats")
    time.sleep(_SILENCE_S)
    assert _text(folder / "beats") == before


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _attempt(
    store: JobStore, asked: Callable[[], Renewal | None] = lambda: Renewal.HELD, *, timeout_us: int | None = None
) -> JobRun:
    """Return an attempt at a job of its own, which no other attempt can claim."""
    clock, id = SystemClock(), new_id()
    store.enqueue([NewJob(f"step-{id}", id=id, timeout_us=timeout_us)], clock.now())
    [lease] = store.claim("suite", {f"step-{id}"}, clock.now(), _LEASE, 1)
    return JobRun(lease, store, clock, asked)


def _call(folder: Path, step: str, **inputs: Any) -> StepCall:
    return StepCall("suite", "run-1", step, f"steps:{step}", inputs, folder / f"{step}.log")


def _run(runner: StepRunner, store: JobStore, folder: Path, step: str, **inputs: Any) -> Any:
    return runner.run(_call(folder, step, **inputs), _attempt(store))


def _refused(kind: type[E], runner: StepRunner, store: JobStore, folder: Path, step: str, **inputs: Any) -> E:
    return _stopped_by(kind, runner, _call(folder, step, **inputs), _attempt(store))


def _stopped_by(kind: type[E], runner: StepRunner, call: StepCall, attempt: JobRun) -> E:
    try:
        found = runner.run(call, attempt)
    except kind as error:
        return error
    raise AssertionError(f"{found!r:.200} came back")
