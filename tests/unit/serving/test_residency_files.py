"""Sizes and decisions in the state folder: by several processes, killed ones too, on a full disk, and bounded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.full_disk import room
from mainspring.serving.adapters import residency_files
from mainspring.serving.adapters.residency_files import FOLDER, FileDecisions, FileSizes
from mainspring.serving.conformance.model_memory import DecisionsConformance, SizesConformance
from mainspring.serving.residency.memory import Decision, Decisions, MemoryDecisions, MemorySizes, Size, Sizes, What


class TestMemorySizes(SizesConformance):
    @pytest.fixture
    def sizes(self) -> Sizes:
        return MemorySizes()


class TestFileSizes(SizesConformance):
    @pytest.fixture
    def sizes(self, tmp_path: Path) -> Sizes:
        return FileSizes(tmp_path)


class TestMemoryDecisions(DecisionsConformance):
    @pytest.fixture
    def decisions(self) -> Decisions:
        return MemoryDecisions()

    @pytest.fixture
    def others(self, decisions: Decisions) -> Callable[[], Decisions]:
        return lambda: decisions


class TestFileDecisions(DecisionsConformance):
    @pytest.fixture
    def decisions(self, tmp_path: Path) -> Decisions:
        return FileDecisions(tmp_path, "gateway-0")

    @pytest.fixture
    def others(self, decisions: Decisions, tmp_path: Path) -> Callable[[], Decisions]:
        return lambda: FileDecisions(tmp_path, "gateway-1")


def decided(at: int, why: str = "a request") -> Decision:
    return Decision(at=at, what=What.LOADED, digest="d" * 64, why=why)


_KILLED = """
import os, sys
from pathlib import Path
from mainspring.serving.adapters.residency_files import FileDecisions
from mainspring.serving.residency.memory import Decision, What
log = FileDecisions(Path(sys.argv[1]), "gateway-0")
for at in range(1_000_000):
    log.add(Decision(at=at, what=What.LOADED, digest="d" * 64, why="a request"))
    os.write(1, b"%d\\n" % at)
"""


def test_what_a_killed_process_decided_is_there_and_the_next_one_goes_on(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _KILLED, str(tmp_path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        last = [int(child.stdout.readline()) for _ in range(50)][-1]
        os.kill(child.pid, signal.SIGKILL)
    (file,) = (tmp_path / FOLDER / "decisions").iterdir()
    with file.open("ab") as torn:
        torn.write(b'{"at":77')
    log = FileDecisions(tmp_path, "gateway-0")
    before = log.since(0)
    assert [each.at for each in before][: last + 1] == list(range(last + 1))
    log.add(decided(2_000_000))
    assert [each.at for each in log.since(0)] == [*(each.at for each in before), 2_000_000]
    assert {each.run for each in log.since(1_999_999)}.isdisjoint(each.run for each in before)
    assert [path.name for path in file.parent.iterdir()] == ["0.jsonl"]


def test_processes_of_one_name_have_files_of_their_own(tmp_path: Path) -> None:
    logs = [FileDecisions(tmp_path, "gateway-0") for _ in range(3)]
    for at, log in enumerate(logs * 2):
        log.add(decided(at))
    assert [each.at for each in logs[0].since(0)] == list(range(6))
    assert len(list((tmp_path / FOLDER / "decisions").iterdir())) == 3


def test_the_log_and_the_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residency_files, "_MOST_BYTES", 4_000)
    monkeypatch.setattr(residency_files, "_MOST_SIZES", 10)
    log, sizes = FileDecisions(tmp_path), FileSizes(tmp_path)
    for at in range(200):
        log.add(decided(at))
    found = [each.at for each in log.since(0)]
    assert found == list(range(found[0], 200))
    assert 20 < len(found) < 80
    assert sum(path.stat().st_size for path in (tmp_path / FOLDER / "decisions").iterdir()) <= 8_000
    for number in range(30):
        sizes.keep(f"{number:064x}", Size(nbytes=number, load_s=0.1, at=number))
    assert len(list((tmp_path / FOLDER / "sizes").iterdir())) == 10
    assert sizes.find(f"{29:064x}") is not None


def test_a_full_disk_and_a_damaged_file_cost_a_line_and_no_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log, sizes = FileDecisions(tmp_path), FileSizes(tmp_path)
    log.add(decided(1))
    sizes.keep("a" * 64, Size(nbytes=1, load_s=0.1, at=1))
    with room(1_000):
        log.add(decided(2, "x" * 100_000))
    with room(10):
        sizes.keep("b" * 64, Size(nbytes=1, load_s=0.1, at=1))
    assert "is not in the log" in caplog.text
    assert "is not kept" in caplog.text
    log.add(decided(3))
    assert [each.at for each in log.since(0)] == [1, 3]
    assert sizes.find("b" * 64) is None
    (tmp_path / FOLDER / "sizes" / f"{'a' * 64}.json").write_bytes(b"\x00")
    assert sizes.find("a" * 64) is None
