"""A program's exit beside daemon threads: its code is its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BEGIN = """
import atexit, builtins, os, sys, threading, time
from mainspring.core.ending import exits_beside_threads

class Last:
    def __del__(self, sleep=time.sleep, write=os.write):
        write(1, b"finalized")
        sleep(SECONDS)

builtins.last = Last()  # it goes when the interpreter is finalized
begun = threading.Event()
"""
# While the interpreter sleeps in `__del__`, the thread returns from the model.
IN_A_MODEL = """
from itertools import pairwise
import numpy as np, onnxruntime
from onnx import TensorProto, helper

x, y = (helper.make_tensor_value_info(name, TensorProto.DOUBLE, [700, 700]) for name in ("x", "y"))
names = ["x", *(f"x{number}" for number in range(9)), "y"]
products = [helper.make_node("MatMul", [each, "x"], [after]) for each, after in pairwise(names)]
graph = helper.make_graph(products, "products", [x], [y])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(model.SerializeToString(), options)

def work():
    begun.set()
    while True:
        session.run(None, {"x": np.ones((700, 700))})
"""
ASLEEP = """
def work():
    begun.set()
    time.sleep(60)
"""
END = """
with exits_beside_threads():
    atexit.register(print, "at exit")
    threading.Thread(target=work, daemon=True).start()
    begun.wait()
    time.sleep(0.2)  # to be in native code
    EXIT
"""
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def ran(program: str, seconds: float = 0) -> tuple[int, str, str]:
    command = [sys.executable, "-c", program.replace("SECONDS", str(seconds))]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=BUFFERED)
    return ended.returncode, ended.stdout, ended.stderr


def test_a_thread_in_a_model_does_not_abort_a_program_that_exits() -> None:
    assert ran(BEGIN + IN_A_MODEL + END.replace("EXIT", "sys.exit(130)"), 20) == (130, "at exit\n", "")


@pytest.mark.parametrize(
    ("how", "ended"),
    [("pass", (0, "at exit\n", "")), ("sys.exit('what is wrong')", (1, "at exit\n", "what is wrong\n"))],
)
def test_a_program_exits_beside_a_thread_as_ever(how: str, ended: tuple[int, str, str]) -> None:
    assert ran(BEGIN + ASLEEP + END.replace("EXIT", how)) == ended


def test_a_program_without_threads_finalizes_its_interpreter() -> None:
    assert ran(BEGIN + "with exits_beside_threads():\n    sys.exit(3)\n") == (3, "finalized", "")


@pytest.mark.parametrize(("error", "code"), [("ValueError('bad')", 1), ("KeyboardInterrupt", 130)])
def test_an_error_that_is_not_caught_is_printed_beside_a_thread(error: str, code: int) -> None:
    ended, output, errors = ran(BEGIN + ASLEEP + END.replace("EXIT", f"raise {error}"))
    assert (ended, output) == (code, "at exit\n")
    assert errors.startswith("Traceback")
    assert error.partition("(")[0] in errors


def test_what_c_wrote_is_flushed_beside_a_thread() -> None:
    write = "import ctypes; ctypes.CDLL(None).printf(b'of C')"
    assert ran(BEGIN + ASLEEP + END.replace("EXIT", write)) == (0, "at exit\nof C", "")


@pytest.mark.parametrize(("output", "code"), [("&-", 3), ("/dev/full", 120), ("&1 | true", 120)])
@pytest.mark.parametrize("thread", ["", "    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"])
def test_output_that_cannot_be_written_beside_a_thread_ends_as_without_one(
    output: str, code: int, thread: str, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    rest = f"{thread}    time.sleep(0.2)\n    print('is lost')\n    sys.exit(3)\n"
    program.write_text(BEGIN.partition("class")[0] + "with exits_beside_threads():\n" + rest)
    command = f"({sys.executable} {program}; echo $? >&3) 3>&2 2>{tmp_path}/errors >{output}"
    ended = subprocess.run(command, check=False, shell=True, stderr=subprocess.PIPE, timeout=60, env=BUFFERED)
    assert int(ended.stderr) == code
    errors = (tmp_path / "errors").read_text()
    assert errors.startswith("Exception ignored") if code != 3 else not errors
