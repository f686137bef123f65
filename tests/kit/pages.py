"""The documentation's pages as tests read them: their fenced blocks, and a project folder in which to run those.

Marks, each an HTML comment of its own, invisible to a reader:

* `<!-- starts in: courier -->` at the top of a page: its blocks run in the project that the tutorial ends with.
* `<!-- not run: REASON -->` before a block: it is left out.
* `<!-- exits: N -->` before a bash block: its last command fails, with this exit code.
* `<!-- compared -->` before a text block: the bash block before it printed exactly this on standard output; `...`
  stands for anything.

A block whose fence says `title="some/file.py"` is written to that file. `mainspring up` alone in a block is started in
the background and runs until the page's end.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from kit import prefork
from kit.waiting import free_port

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
_PATH = (Path(sys.executable).parent, os.environ["PATH"])
_FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_MARK = re.compile(r"<!-- ([a-z ]+?)(?:: (.*?))? -->\s*\Z")
# Programs beside the package, as `pip install ./oip-conformance ./edge-runtime` makes them: name -> folder, module.
_BESIDE = {
    "oip-conformance": (ROOT / "oip-conformance" / "src", "oip_conformance"),
    "mainspring-edge": (ROOT / "edge-runtime" / "src", "mainspring_edge.cli"),
}
_DRIVER = (
    f"SOURCES = {[str(source) for source, _ in _BESIDE.values()]}"
    + """
import json, sys, traceback, os
space = {"__name__": "__main__"}
sys.path[:0] = ["", *SOURCES]
for line in sys.stdin:
    asked = json.loads(line)
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    try:
        exec(compile(asked["code"], asked["name"], "exec"), space)
        answer = ""
    except BaseException:
        answer = traceback.format_exc()
    sys.stdout.flush()
    print(json.dumps({"failed": answer}), file=sys.stderr, flush=True)
"""
)


def script(name: str) -> ModuleType:
    """Return a script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Block:
    """One fenced block. `mark` is the comment before it, with what stands behind its colon."""

    language: str
    title: str
    body: str
    line: int
    mark: str
    said: str


def pages() -> list[Path]:
    """Return README.md and every page under docs/."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """Return the page's fenced blocks, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for fence in _FENCE.finditer(text):
        mark = _MARK.search(text[: fence.start()])
        title = re.search(r'title="([^"]+)"', fence[2])
        found.append(
            Block(
                language=fence[1],
                title=title[1] if title else "",
                body=fence[3],
                line=text.count("\n", 0, fence.start()) + 1,
                mark=mark[1] if mark else "",
                said=(mark[2] or "") if mark else "",
            )
        )
    return found


class Reader:
    """Somebody who follows a page to the letter, in `folder`.

    Args:
        ports: The gateway's and the control plane's, instead of 8080 and 8081. For gRPC, any is taken instead of 8082,
            and for a collector of spans instead of 4318.
    """

    def __init__(self, folder: Path, ports: tuple[int, int]) -> None:
        self.folder = folder
        self.printed = ""
        self._ports = ports
        self._others = {8082: free_port(), 4318: free_port()}
        self._cwd = folder
        self._up: subprocess.Popen[bytes] | None = None
        self._python: subprocess.Popen[str] | None = None
        self._environment = {name: text for name, text in os.environ.items() if not name.startswith("MAINSPRING_")} | {
            "PATH": os.pathsep.join(map(str, [_programs(folder), prefork.programs(), *_PATH])),
            "MAINSPRING_GATEWAY": f"127.0.0.1:{ports[0]}",
            "MAINSPRING_CONTROL": f"127.0.0.1:{ports[1]}",
            "OMP_NUM_THREADS": "1",
        }

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._python is not None:
            self._python.communicate(timeout=30)  # its input ends, and so does it
        if self._up is not None:
            self._up.send_signal(signal.SIGTERM)
            self._up.wait(timeout=30)

    def follow(self, page: Path) -> None:
        """Do what the page says, block by block."""
        for block in blocks(page):
            self._where = f"{name_of(page)}:{block.line}"
            if block.mark == "not run":
                assert block.said, f"{self._where}: say why it is not run"
            elif block.title:
                self._write(block)
            elif block.language == "bash":
                self._shell(block)
            elif block.language == "python":
                self._execute(block)
            elif block.language == "toml":
                tomllib.loads(block.body)
            elif block.language == "text" and block.mark == "compared":
                self._compare(block.body)

    def _write(self, block: Block) -> None:
        path = self._cwd / block.title
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.body, encoding="utf-8")

    def _shell(self, block: Block) -> None:
        script = self._here(re.sub(r"^\$ ", "", block.body, flags=re.MULTILINE))
        if script.strip() == "mainspring up":
            self._start()
            return
        state = self.folder / ".reader"
        keep = f"trap 'code=$?; export -p > {shlex.quote(str(state))}; exit $code' EXIT\n"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", keep + script],
            cwd=self._cwd,
            env=self._environment,
            text=True,
            capture_output=True,
            timeout=150,
            check=False,
        )
        expected = int(block.said) if block.mark == "exits" else 0
        assert done.returncode == expected, f"{self._where} exits {done.returncode}:\n{done.stdout}{done.stderr}"
        self.printed = done.stdout
        self._remember(state)

    def _remember(self, state: Path) -> None:
        told = subprocess.run(
            ["bash", "-c", f"source {shlex.quote(str(state))} && exec env -0"],
            text=True,
            capture_output=True,
            env={},
            check=True,
        ).stdout
        self._environment = dict(each.split("=", 1) for each in told.split("\0") if "=" in each)
        self._cwd = Path(self._environment["PWD"])
        state.unlink()

    def _start(self) -> None:
        assert self._up is None, f"{self._where}: it is up already"
        said = self.folder / ".reader-up"
        with said.open("wb") as output:
            self._up = subprocess.Popen(
                ["mainspring", "up"], cwd=self._cwd, env=self._environment, stdout=output, stderr=output
            )
        deadline = time.monotonic() + 60
        while not self._ready():
            if self._up.poll() is not None or time.monotonic() > deadline:
                self._up.kill()
                raise AssertionError(f"{self._where}: {said.read_text()}")
            time.sleep(0.1)

    def _ready(self) -> bool:
        gateway, control = self._ports
        try:
            for place in (f"{gateway}/v2/health/ready", f"{control}/health/ready"):
                with urllib.request.urlopen(f"http://127.0.0.1:{place}", timeout=2):
                    pass
        except OSError:
            return False
        return True

    def _execute(self, block: Block) -> None:
        if self._python is None:
            self._python = subprocess.Popen(
                [prefork.programs() / "python", "-c", _DRIVER],
                cwd=self._cwd,
                env=self._environment,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        asked = {
            "code": self._here(block.body),
            "name": self._where,
            "folder": str(self._cwd),
            "environment": self._environment,
        }
        assert self._python.stdin is not None
        assert self._python.stderr is not None
        print(json.dumps(asked), file=self._python.stdin, flush=True)
        told = [""]
        while not told[-1].startswith('{"failed"'):
            told.append(self._python.stderr.readline())
            assert told[-1], f"{self._where}: Python ended: {''.join(told)}"
        answer: dict[str, Any] = json.loads(told[-1])
        assert not answer["failed"], f"{self._where}:\n{answer['failed']}"

    def _compare(self, body: str) -> None:
        pattern = ".*?".join(re.escape(part) for part in _plain(body).split("..."))
        assert re.fullmatch(pattern, _plain(self.printed), re.DOTALL), (
            f"{self._where} says\n{body}\nand it printed\n{self.printed}"
        )

    def _here(self, text: str) -> str:
        for documented, free in {8080: self._ports[0], 8081: self._ports[1], **self._others}.items():
            text = text.replace(f"127.0.0.1:{documented}", f"127.0.0.1:{free}")
        return text


def _programs(folder: Path) -> Path:
    """Return a folder with the programs beside the package."""
    programs = folder / ".reader-programs"
    programs.mkdir()
    for name, (source, module) in _BESIDE.items():
        program = programs / name
        program.write_text(f'#!/bin/sh\nPYTHONPATH="{source}" exec "{sys.executable}" -m {module} "$@"\n')
        program.chmod(0o700)
    return programs


def _plain(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())
