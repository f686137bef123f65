"""Workers of pytest-xdist, forked from one process that has collected the tests: else each would import all of them."""

from __future__ import annotations

import gc
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from itertools import takewhile
from pathlib import Path

import pytest

from kit import prefork

_TESTS = str(Path(__file__).parents[1])
_PROGRAM = """\
#!{python} -IS
import sys
sys.path.append({tests!r})
sys.argv.remove("-u")
from kit import prefork_client
prefork_client.main({address!r})
"""


# What was set of the environment and added to `sys.path` as the tests were imported.
_SET: dict[str, str] = {}
_FIRST: list[str] = []
_LAST: list[str] = []


def begin(config: pytest.Config) -> None:
    """Have the workers of this run forked by a process that ends with it, where commands are forked, too."""
    if prefork.real():
        return
    folder = Path(tempfile.mkdtemp(prefix="workers-"))
    address, program = str(folder / "socket"), folder / "python"
    program.write_text(_PROGRAM.format(python=sys.executable, tests=_TESTS, address=address))
    program.chmod(0o700)
    with socket.socket(socket.AF_UNIX) as listener:  # who connects waits until the tests are collected
        listener.bind(address)
        listener.listen(64)
        code = f"import sys; sys.path[0] = {_TESTS!r}; from kit import prefork_workers; prefork_workers.serve()"
        command = [sys.executable, "-c", code, str(listener.fileno()), *config.invocation_params.args]
        pipe, fds = subprocess.PIPE, [listener.fileno()]
        server = subprocess.Popen(command, pass_fds=fds, stdin=pipe, stdout=subprocess.DEVNULL)
    config.add_cleanup(server.communicate)
    config.option.tx = [f"{each}//python={program}" for each in config.option.tx]


def resume() -> None:
    """Set again, in a worker, what a fork and xdist have replaced."""
    os.environ.update(_SET)
    sys.path[:] = [*_FIRST, *sys.path, *_LAST]


def serve() -> None:
    """Collect the tests of the command line and fork for every worker, until standard input ends."""
    number, *arguments = sys.argv[1:]
    here, environment, path = prefork.bound(os.environ), dict(os.environ), list(sys.path)
    pytest.main([*arguments, "-n", "0", "--collect-only", "-p", "no:cacheprovider"])
    _SET.update(os.environ.items() - environment.items())
    _FIRST.extend(takewhile(lambda each: each not in path, sys.path))
    _LAST.extend(each for each in sys.path[len(_FIRST) :] if each not in path)
    gc.collect()
    gc.freeze()
    gc.disable()  # a worker enables it once it has collected
    with socket.socket(fileno=int(number)) as listener:
        prefork.attend(listener, here, sys.executable)
        shutil.rmtree(Path(listener.getsockname()).parent)
