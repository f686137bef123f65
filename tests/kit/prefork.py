"""Commands in forked processes: `mainspring ...` without the start of an interpreter and its imports.

A server (`serve`, a process of its own, one for all workers of a run) imports once what commands import, and forks for
each command: a process of its own, with its own arguments, environment, folder and streams, that has nothing of
another command's. A shell finds the same as the programs `mainspring` and `python` in the folder `programs()`
(`prefork_client`), and so do forked commands that start a child. Commands that need PyTorch are forked from a copy of
the server that has imported it too, made for the first of them. `MAINSPRING_TESTS_START=real` starts an interpreter
for each instead, as `make test-deep` does. So do tests of what starting is: its time, what is imported, signals
meanwhile.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import re
import runpy
import selectors
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import traceback
import types
import typing
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from kit.large_pages import in_large_pages
from kit.prefork_client import COUNT, TORCH, WORKER, address_of, exactly, number, umask
from mainspring.core.locks import FileLocks

_HEAVY = (
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.tracing.processor.base_mlflow",
    "mlflow.tracing.processor.otel",
    "narwhals._pandas_like.namespace",
    "narwhals.stable.v2._namespace",
    "pyarrow.dataset",
    "rich._emoji_codes",
    "scipy.stats",
    "skl2onnx",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.pipeline",
)
_WITH_TORCH = (
    "mainspring.training.distributed.agent",
    "torch.distributed.fsdp",
    "torch.distributed.pipelining",
    "torch.distributed.tensor.parallel",
    "torch.utils.data",
)
_NOT_IMPORTED = re.compile(
    r"__main__|conformance|\.migrations\.|\.adapters\.(beam_chunks|catboost|lightgbm|ray(_\w+)?|spark(_chunks)?|warehouse_(bigquery|snowflake)|xgboost)$|\.(on_ray|ray_cluster)$|\.distributed\.(agent|ranks|machine)$"
)
# What libraries read of the environment while they are imported must be the same for all. These they do not read,
_FREE = (
    *(
        "MAINSPRING_",
        "AWS_",
        "COLUMNS",
        "LINES",
        "NO_COLOR",
        "FORCE_COLOR",
        "PATH",
        "PWD",
        "OLDPWD",
        "PYTEST_",
        "SHLVL",
        "TERM",
        "_",
    ),
    "LC_CTYPE",  # an interpreter sets it itself
    *("MLFLOW_DISABLE_TELEMETRY", "OMP_WAIT_POLICY"),  # so does the package, also in the process of the tests
    "PYTHONUNBUFFERED",  # a forked command does as it says
    "OPENBLAS_NUM_THREADS",  # one by OMP_NUM_THREADS already
)
# nor what the server has not, but for these.
_READ = ("ARROW", "GRPC", "LC_", "LD_", "MALLOC", "MKL", "MLFLOW", "OMP", "OPENBLAS", "OTEL", "PYTHON", "SKLEARN", "TZ")
_TESTS = str(Path(__file__).parents[1])
BEGUN_WITH: dict[str, str] = {}  # the environment of pytest, before any test or library has changed it
_PROGRAM = """\
#!{python} -IS
import sys
sys.path.append({tests!r})
from kit import prefork_client
prefork_client.main({address!r})
"""


def suits(environment: Mapping[str, str]) -> bool:
    """Return whether a command with this environment may be forked."""
    return not _real() and _same(environment, _server().environment)


def programs() -> Path:
    """Return the folder of `mainspring` and `python`, which goes first in a PATH: they fork where that is the same."""
    return Path(sys.executable).parent if _real() else _server().programs


def worker() -> Path:
    """Return the Python in which pytest-xdist starts its workers: forked where PyTorch is imported already."""
    return _server().worker


def program(module: types.ModuleType, *arguments: object) -> list[str]:
    """Return the command that runs a module of this package as a program, forked where that is the same.

    Not for programs that are killed: the forked process ends a moment after the one that was started.
    """
    code = (
        f"import runpy, sys; sys.path.insert(0, {_TESTS!r}); runpy.run_module({module.__name__!r}, run_name='__main__')"
    )
    return [str(programs() / "python"), "-c", code, *map(str, arguments)]


def script(path: Path, *arguments: object, imports: str = "sys") -> list[str]:
    """Return the command that runs a file as a program, as `program` does a module; it finds what lies beside it.

    Args:
        imports: A library that it imports; `torch`: it is forked where that is imported already.
    """
    code = (
        f"import runpy, sys, {imports}; sys.path[:0] = [{str(path.parent)!r}, {_TESTS!r}]; "
        f"runpy.run_path({str(path)!r}, run_name='__main__')"
    )
    return [str(programs() / "python"), "-c", code, *map(str, arguments)]


def documents(path: Path, *arguments: object) -> list[dict[str, Any]]:
    """Run a file as a program, which has to succeed; return the JSON documents among the lines that it printed."""
    command = script(path, *arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def run(
    arguments: Sequence[str], *, cwd: Path, environment: Mapping[str, str], timeout_s: float
) -> tuple[int, str, str]:
    """Return how the command ended, as `Popen.returncode` has it, and what it wrote to stdout and stderr.

    Raises:
        TimeoutExpired: It did not end; it is killed.
    """
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        command = Command(arguments, cwd=cwd, environment=environment, stdout=stdout, stderr=stderr)
        try:
            code = command.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise subprocess.TimeoutExpired(list(arguments), timeout_s, written(stdout), written(stderr)) from None
        finally:
            command.close()
        return code, written(stdout), written(stderr)


class Command:
    """A forked command that writes to two files. It has of `Popen` what tests use of a process."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        environment: Mapping[str, str],
        stdout: IO[bytes],
        stderr: IO[bytes],
    ) -> None:
        self._arguments = list(arguments)
        self.returncode: int | None = None
        self._line = socket.socket(socket.AF_UNIX)
        command = ["-m", "mainspring", *arguments]
        self._line.connect(address_of(_server().address, command, cwd))
        said = json.dumps([command, str(cwd), dict(environment), umask(), [0, 1, 2]]).encode()
        with Path(os.devnull).open() as nothing:
            streams = [nothing.fileno(), stdout.fileno(), stderr.fileno()]
            socket.send_fds(self._line, [COUNT.pack(len(said))], streams)
        self._line.sendall(said)
        self.pid = number(self._line)
        assert self.pid, "the environment does not suit"

    def wait(self, timeout: float) -> int:
        """Return how the command ended, as `Popen.returncode` has it.

        Raises:
            TimeoutExpired: It did not end within `timeout` seconds.
        """
        if self.returncode is None:
            self._line.settimeout(timeout)
            try:
                self.returncode = number(self._line)
            except TimeoutError:
                raise subprocess.TimeoutExpired(self._arguments, timeout) from None
        return self.returncode

    def poll(self) -> int | None:
        """Return how the command ended, or nothing while it goes on."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0.001)
        return self.returncode

    def send_signal(self, which: signal.Signals) -> None:
        """Send the command a signal unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, which)

    def kill(self) -> None:
        """Kill the command unless it has ended."""
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Kill the command unless it has ended, and let go of it."""
        self.kill()
        self.wait(60)
        self._line.close()


def written(file: IO[bytes]) -> str:
    """Return what is in a file, also while a command writes to it: their place in it is one."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode()


class _Server:
    """The server of a run of tests: started by the first worker that needs it, it ends after the last that used it."""

    def __init__(self) -> None:
        run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or f"alone-{os.getpid()}"
        folder = Path(tempfile.gettempdir()) / f"prefork-{run}"
        self.address, self.programs = str(folder / "socket"), folder / "bin"
        self.worker = folder / "worker"
        environment, users = folder / "environment", folder / "users"
        with FileLocks(folder).hold("start", wait_s=380):
            if not environment.exists():
                os.mkfifo(users)
                until = os.open(users, os.O_RDONLY | os.O_NONBLOCK)
                self._user = os.open(users, os.O_WRONLY)
                environment.write_text(json.dumps(self._start(until)))
                os.close(until)
            else:
                self._user = os.open(users, os.O_WRONLY)
            self.environment = json.loads(environment.read_text())

    def _start(self, until: int) -> dict[str, str]:
        """Start it, to run until this input ends; return its environment."""
        self.programs.mkdir()
        for program in (self.programs / "mainspring", self.programs / "python", self.worker):
            program.write_text(_PROGRAM.format(python=sys.executable, tests=_TESTS, address=self.address))
            program.chmod(0o700)
        environment = _bound(BEGUN_WITH or os.environ) | {"OMP_NUM_THREADS": "1"}
        ready, told = os.pipe()
        program = f"import sys; sys.path[0] = {_TESTS!r}; from kit import prefork; prefork.serve()"
        command = [sys.executable, "-c", program, self.address, str(told)]
        process = subprocess.Popen(command, env=environment, pass_fds=[told], stdin=until)
        os.close(told)
        with os.fdopen(ready) as started:
            assert started.read() == "ready", "the server of forked commands did not start"
        atexit.register(self._end, process)
        return environment

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        os.close(self._user)
        with contextlib.suppress(subprocess.TimeoutExpired):  # another process uses it for longer
            process.wait(30)


_server = functools.cache(_Server)


def _real() -> bool:
    return os.environ.get("MAINSPRING_TESTS_START") == "real"


def _same(environment: Mapping[str, str], here: Mapping[str, str]) -> bool:
    """Whether libraries are the same in an environment as imported in another, of which `_bound` is left.

    Folders of modules may be more: a forked command looks there too.
    """
    bound, before = _bound(environment), dict(here)
    path, least = (set(each.pop("PYTHONPATH", "").split(os.pathsep)) - {""} for each in (bound, before))
    others = bound.keys() - before.keys()
    return least <= path and before.items() <= bound.items() and not any(name.startswith(_READ) for name in others)


def _bound(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(_FREE)}


def serve() -> None:
    """Fork for every command that is asked for at the address on the command line, until standard input ends."""
    address, ready = sys.argv[1], int(sys.argv[2])
    here = _bound(os.environ)  # before imports add to it
    gc.disable()  # what is imported stays
    mainspring = importlib.import_module("mainspring")
    for each in pkgutil.walk_packages(mainspring.__path__, "mainspring."):
        if not each.ispkg and not _NOT_IMPORTED.search(each.name):
            try:
                importlib.import_module(each.name)
            except ModuleNotFoundError as missing:  # an adapter of an extra that is not installed
                if (missing.name or "").startswith("mainspring"):
                    raise
    for name in _HEAVY:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:  # a child that makes a store of runs has its bytes
        importlib.import_module("mainspring.registry.adapters.mlflow_store").create_sqlite(Path(folder) / "runs.db")
    importlib.import_module("mainspring.project.catalog").memory_catalog().dispose()  # and those of catalogs
    importlib.import_module("mainspring.training.runs.provenance").package_digest()  # of what is imported, so of all
    typing._cleanups.clear()  # type: ignore[attr-defined]  # some libraries empty these caches, of all, at their end
    gc.collect()
    gc.freeze()  # a child's collection shall not touch, and so copy, what all share
    in_large_pages()
    gc.enable()
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as with_torch:
        for each, at in ((listener, address), (with_torch, address + TORCH)):
            each.bind(at)
            each.listen(64)
        os.write(ready, b"ready")
        os.close(ready)
        _Attendant(listener, here, str(Path(address).parent / "bin" / "python"), with_torch).attend()
    shutil.rmtree(Path(address).parent, ignore_errors=True)


class _Attendant:
    """Begins commands, and says of each which process it is and how that ended. It is the parent of all.

    Args:
        with_torch: Where commands are asked for that need PyTorch: a copy of this process attends there.
    """

    def __init__(
        self, listener: socket.socket, here: Mapping[str, str], python: str, with_torch: socket.socket | None = None
    ) -> None:
        self._listener, self._here, self._python = listener, here, python
        self._with_torch, self._copy = with_torch, 0
        self._lines: dict[int, socket.socket] = {}  # who asked for the command, by its process
        self._waiting = selectors.DefaultSelector()
        self._woken, waker = socket.socketpair()
        self._open = [listener, self._woken, waker, self._waiting]  # a command has none of these
        waker.setblocking(False)
        signal.set_wakeup_fd(waker.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)  # not ignored: the time of children is in that of the tests

    def attend(self) -> None:
        """Attend until standard input ends: then all of pytest has ended, however it went, and so do all commands."""
        for each in (self._listener, self._woken, self._with_torch, 0):
            if each is not None:
                self._waiting.register(each, selectors.EVENT_READ)
        while 0 not in (ready := [key.fileobj for key, _ in self._waiting.select()]):
            if self._woken in ready:
                self._woken.recv(4096)
                self._reap()
            for process, line in self._lines.items():
                if line in ready:  # whoever asked is gone
                    self._waiting.unregister(line)
                    os.kill(process, signal.SIGKILL)
            if self._with_torch is not None and self._with_torch in ready:
                self._begin_copy(self._with_torch)
            if self._listener in ready:
                line, _ = self._listener.accept()
                with contextlib.suppress(OSError, AssertionError):  # it is gone already
                    self._begin(line)
        for process in self._lines:
            os.kill(process, signal.SIGKILL)
        if self._copy:  # the same input ends for it
            os.waitpid(self._copy, 0)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                assert ended[0] != self._copy, "the copy with PyTorch has ended"
                with self._lines.pop(ended[0]) as line, contextlib.suppress(KeyError, OSError):
                    self._waiting.unregister(line)
                    line.sendall(COUNT.pack(os.waitstatus_to_exitcode(ended[1])))

    def _begin_copy(self, listener: socket.socket) -> None:
        self._waiting.unregister(listener)
        self._copy = os.fork()
        if self._copy == 0:
            signal.set_wakeup_fd(-1)
            for each in (*self._open, *self._lines.values()):
                each.close()
            try:
                _import_torch()
                _Attendant(listener, self._here, self._python).attend()
            except BaseException:
                traceback.print_exc()
            os._exit(0)
        listener.close()

    def _begin(self, line: socket.socket) -> None:
        line.settimeout(30)
        header, files, _, _ = socket.recv_fds(line, COUNT.size, 250)
        try:
            arguments, cwd, environment, mask, places = json.loads(exactly(line, COUNT.unpack(header)[0]))
            if not _same(environment, self._here):
                with line:
                    line.sendall(COUNT.pack(0))
                return
            if arguments[0] == WORKER:
                _read_constants()
            child = os.fork()
            if child == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for each in (*self._open, *self._lines.values(), line):
                    each.close()
                _place(files, places)
                if arguments[0] != WORKER:
                    sys.executable = self._python
                os.umask(mask)
                os._exit(_command(arguments, cwd, environment))
        finally:
            for file in files:
                os.close(file)  # who reads a pipe to its end waits for the command alone
        self._lines[child] = line
        self._waiting.register(line, selectors.EVENT_READ)
        line.sendall(COUNT.pack(child))


def _import_torch() -> None:
    gc.disable()
    for name in _WITH_TORCH:
        importlib.import_module(name)
    flavour = importlib.import_module("mainspring.training.flavours.torch").TorchFlavour()
    network, rows = sys.modules["torch"].nn.Linear(2, 1), sys.modules["torch"].zeros(2, 2)
    flavour.exported(network, network, {"x": rows}, ["y"], [{0: "rows"}])  # imports 800 modules
    gc.collect()
    gc.freeze()
    in_large_pages()
    gc.enable()


@functools.cache
def _read_constants() -> None:
    """Let hypothesis read the constants of this package's modules, of which it makes examples, once for all workers."""
    gc.disable()
    importlib.import_module("hypothesis.internal.conjecture.providers")._get_local_constants()
    # Its plugin for pytest, which each worker loads, shall not take this for the doing of another plugin.
    importlib.import_module("hypothesis.configuration").notice_initialization_restarted(warn=False)
    gc.collect()
    gc.freeze()
    gc.enable()


def _place(files: Sequence[int], places: Sequence[int]) -> None:
    """Give open files the numbers under which they were inherited."""
    above = max(*files, *places) + 1
    for file in files:
        os.dup2(file, above + file)
        os.close(file)
    for file, place in zip(files, places, strict=True):
        os.dup2(above + file, place)
        os.close(above + file)


def _command(arguments: list[str], cwd: str, environment: dict[str, str]) -> int:
    """Be `python -c ...` or `python -m ...` with a module of `mainspring` in a folder; return the exit code.

    All of an interpreter's end is done but to take the modules apart, which would copy the memory of all of them.
    """
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    how, what, *others = arguments
    sys.path[1:1] = [each for each in environment.get("PYTHONPATH", "").split(os.pathsep) if each not in sys.path]
    if environment.get("PYTHONUNBUFFERED") or how == WORKER:
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(write_through=True)  # type: ignore[union-attr]
    main = sys.modules["mainspring.cli.main"]
    code: Any = 0
    try:
        if how in {"-c", WORKER}:
            sys.argv, sys.path[0] = ["-c", *others], ""
            space = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(what, vars(space))
        elif what != "mainspring":
            sys.argv, sys.path[0] = ["-m", *others], cwd
            warnings.filterwarnings("ignore", message=".* found in sys.modules", module="runpy")
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            sys.argv, sys.path[0] = [str(Path(main.__file__ or "").parents[1] / "__main__.py"), *others], cwd
            main.main()
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    gc.collect()  # files and databases that nobody closed
    for each in gc.get_objects():  # and what modules still know: an interpreter's end closes databases
        if isinstance(each, sqlite3.Connection):
            with contextlib.suppress(sqlite3.Error):  # it is another thread's
                each.close()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    return int(code)
