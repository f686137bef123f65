"""A function that serves as a model is held in a process that computes and reaches nothing."""

import logging
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit.hostile import ACTS
from mainspring.core import sandbox
from mainspring.core.errors import Corrupt, Invalid, Unavailable
from mainspring.core.own_process import receive
from mainspring.core.sandbox import ALL, OFF, REQUIRED, Policy, available, set_policy
from mainspring.core.sandbox import policy as current_policy
from mainspring.project.code_reach import closed_to_code, open_to_code
from mainspring.project.definitions.functions import source_digest
from mainspring.project.settings import load_settings
from mainspring.registry.model import Code
from mainspring.serving.adapters.apart import FunctionApart, LoadFunction
from mainspring.serving.adapters.sessions import CallLimits
from mainspring.serving.plane.executor import ModelFailed

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[2]
PROCESS = "mainspring.project.function_process"
MODULE = """
import json, os, sys, time
from pathlib import Path
import numpy as np
from helper import half
from kit.hostile import Place, attempts
from mainspring.core.errors import Invalid

def doubled(x):
    return x * 2

def told(x):
    return {"y": half(x), "words": np.array([Path(__file__).with_name("word.txt").read_text()] * len(x), object)}

def hostile(x):
    place = json.loads(Path(__file__).with_name("place.json").read_text())
    return np.array([f"{name}: {got}" for name, got in attempts(Place(*place)).items() if got] or [""], object)

def secrets(x):
    return np.array([name for name in os.environ if "SECRET" in name or "MAINSPRING" in name] or [""], object)

def slow(x):
    time.sleep(60)

def greedy(x):
    return np.ones(int(x[0]), np.uint8)[:1]

def loud(x):
    for number in range(150):
        print("word", number, file=sys.stderr)
    return x

def dead(x):
    os._exit(3)

def refused(x):
    raise Invalid("Row 0 is not a picture.", fix="send a picture.")

def writes(x):
    x[0] = 1
"""
HOSTILE_IMPORT = """
from pathlib import Path
STOLEN = Path(__file__).with_name(".mainspring").joinpath("key").read_text()
def f(x): return x
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    found = tmp_path / "project"
    (found / ".mainspring").mkdir(parents=True)
    (found / ".mainspring" / "key").write_text("secret")
    (found / "models.py").write_text(MODULE)
    (found / "helper.py").write_text("def half(x):\n    return x / 2\n")
    (found / "word.txt").write_text("read")
    return found


@pytest.fixture
def made(root: Path) -> Iterator[Any]:
    functions: list[FunctionApart] = []

    def make(name: str, seconds: float = 20.0, policy: Policy = Policy(), module: str = "models") -> FunctionApart:  # noqa: B008
        code = Code(f"{module}:{name}", source_digest(root, f"{module}:{name}"))
        set_policy(policy)
        load, limits = LoadFunction(code, str(root), 200 << 20), CallLimits(seconds, 200 << 20)
        reads = [*root.glob("[!.]*"), TESTS]
        found = FunctionApart(PROCESS, load, limits, reads=reads, hidden=[root / ".mainspring"])
        functions.append(found)
        return found

    before = current_policy()
    yield make
    set_policy(before)
    for each in functions:
        each.close()


X = np.array([4.0, 2.0])


def test_a_function_answers_from_its_process(made: Any) -> None:
    function = made("told")
    found = function(x=X)
    assert found["y"].tolist() == [2.0, 1.0]
    assert found["words"].tolist() == ["read", "read"]  # data files of the project are open to it
    assert made("doubled")(x=X).tolist() == [8.0, 4.0]


@pytest.mark.skipif(available() != ALL, reason="this kernel has no Landlock or no seccomp")
def test_a_hostile_function_gets_nothing(made: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAINSPRING_PASSWORD", "hidden")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    other = subprocess.Popen(["/bin/sleep", "60"])
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            place = (str(root / ".mainspring" / "key"), server.getsockname()[1], str(root), other.pid)
            (root / "place.json").write_text(str(list(place)).replace("'", '"'))
            assert made("hostile")(x=X).tolist() == [""], ACTS.keys()
            assert made("secrets")(x=X).tolist() == [""]
        assert other.poll() is None
        assert (root / ".mainspring" / "key").read_text() == "secret"
        (root / "stolen.py").write_text(HOSTILE_IMPORT)
        with pytest.raises(Corrupt, match="Permission denied"):
            made("f", module="stolen")
    finally:
        other.kill()
        other.wait()


def test_a_function_that_is_slow_greedy_or_dies_ends_alone(made: Any) -> None:
    slow = made("slow", seconds=0.5)
    for _ in range(2):  # the next call starts another process
        with pytest.raises(ModelFailed, match=r"it ran for 0\.5 s"):
            slow(x=X)
    greedy = made("greedy")
    with pytest.raises(ModelFailed, match="Memory"):
        greedy(x=np.array([300 << 20]))
    assert greedy(x=np.array([10 << 20])).tolist() == [1]
    with pytest.raises(ModelFailed, match="crashed"):
        made("dead")(x=X)
    with pytest.raises(ModelFailed, match="read-only"):
        made("writes")(x=X)
    with pytest.raises(Invalid, match="Row 0 is not a picture") as caught:
        made("refused")(x=X)
    assert caught.value.fix == "send a picture."


def test_what_a_function_writes_is_logged_within_bounds(made: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        made("loud")(x=X)
        for _ in range(1_000):  # a busy machine takes its time
            lines = [record.getMessage() for record in caplog.records]
            if len(lines) >= 100:
                break
            time.sleep(0.05)
    assert lines[0] == "models:loud: word 0"
    assert len(lines) == 100


def test_isolation_may_be_required_and_switched_off(made: Any, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    if available() == ALL:
        assert made("doubled", policy=Policy(REQUIRED))(x=X).tolist() == [8.0, 4.0]
    (root / "stolen.py").write_text(HOSTILE_IMPORT)
    assert made("f", policy=Policy(OFF), module="stolen")(x=X).tolist() == X.tolist()


def test_a_machine_that_cannot_confine_refuses_where_that_is_required(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "available", lambda: frozenset({sandbox.FILES}))
    with pytest.raises(Unavailable, match="network, processes would be open"):
        made("doubled", policy=Policy(REQUIRED))
    assert made("doubled")(x=X).tolist() == [8.0, 4.0]


def test_a_reply_that_announces_more_than_it_sends_takes_no_memory() -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall((1 << 30).to_bytes(8, "little"))
    theirs.close()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(EOFError), ours:
        receive(ours)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


def test_what_is_open_to_code_of_a_project(tmp_path: Path) -> None:
    root = tmp_path / "shop"
    for each in ("shop", ".mainspring/keys", "data/lake", "keys"):
        (root / each).mkdir(parents=True)
    for each in ("mainspring.toml", ".env", "words.txt"):
        (root / each).write_text("")
    (root / "current").symlink_to(".")
    (root / "mainspring.toml").write_text(
        'name = "shop"\nmodules = ["shop"]\n[profiles.local]\nlake = "data/lake"\nencryption = "file:keys"\n'
    )
    settings = load_settings(root, "local")
    assert [each.name for each in open_to_code(settings)] == ["data", "keys", "shop", "words.txt"]
    found = [*sandbox.expanded(open_to_code(settings), closed_to_code(settings))]
    assert [each.name for each in found] == ["shop", "words.txt"]


def test_a_changed_source_is_refused(made: Any, root: Path) -> None:
    code = Code("models:doubled", "0" * 64)
    load = LoadFunction(code, str(root), 200 << 20)
    with pytest.raises(Corrupt, match="has changed") as caught:
        FunctionApart(PROCESS, load, CallLimits(), reads=[*root.glob("[!.]*")])
    assert "register it again" in (caught.value.fix or "")
