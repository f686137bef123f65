"""Every helper of the tests lies in one package, whose page names all of them."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path

import pytest

from kit.later import later

KIT = Path(__file__).parents[1] / "kit"


def test_the_page_names_every_module() -> None:
    modules = {
        ".".join(path.relative_to(KIT).with_suffix("").parts) for path in KIT.rglob("*.py") if path.stem != "__init__"
    }
    page = (KIT / "README.md").read_text()
    assert set(re.findall(r"`([a-z_.]+)`", page)) & modules == modules
    named = {
        name
        for line in page.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([a-z_.]+)`", line.split("|")[1])
    }
    assert named <= modules


def test_no_helper_lies_beside_the_page() -> None:
    loose = {
        path.name
        for path in KIT.parent.rglob("*.py")
        if KIT not in path.parents and not {"typing", "dumps"} & {*path.parts}
    }
    allowed = re.compile(r"(test_\w+|conftest|\w+_(victim|summary))\.py")
    assert [name for name in sorted(loose) if not allowed.fullmatch(name)] == []


def test_a_library_for_later_is_imported_by_who_uses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_library.py").write_text("ANSWER = 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    library = later("slow_library")
    assert not hasattr(library, "_mock_name")  # as pytest asks of all that a file holds
    assert "slow_library" not in sys.modules
    assert library.ANSWER == 42
    with pytest.raises(pytest.skip.Exception, match="no_such_library"):
        later("no_such_library")


def test_no_file_of_tests_imports_what_few_tests_need() -> None:
    slow = r"(anthropic|lightgbm|onnxscript|openai|sympy|torch|transformers|xgboost)"
    at_the_head = re.compile(rf'^(import {slow}\b|from {slow}\b|(\w+ = )?pytest\.importorskip\("{slow})', re.MULTILINE)
    files = [path for path in KIT.parent.rglob("test_*.py") if at_the_head.search(path.read_text())]
    assert files == [], "each process of a run imports every file: write later(...) of kit.later"


def test_a_worker_waits_for_no_acknowledgement(pytestconfig: pytest.Config) -> None:
    if hasattr(pytestconfig, "workerinput"):  # elsewhere there is no such socket
        assert pytestconfig.failures_db.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
