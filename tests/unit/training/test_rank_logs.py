"""Logs of ranks are bounded, and say how much is left out."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.full_disk import room
from mainspring.training.distributed.logs import BoundedLog, Outputs, last_lines, logged

LEFT_OUT = re.compile(rb"\n\[\.\.\. ([\d,]+) lines, ([\d,]+) bytes, are left out \.\.\.\]\n")


@given(pieces=st.lists(st.binary(max_size=90).map(lambda each: each.replace(b"[", b"\n")), max_size=40))
def test_the_first_and_the_last_are_kept_and_the_rest_is_counted(
    pieces: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("logs") / "rank-0.log"
    log = BoundedLog(path, first=100, last=60)
    for piece in pieces:
        log.write(piece)
    whole, found = b"".join(pieces), logged(path)
    if len(whole) <= 100:
        assert found == whole
        return
    first, *rest = LEFT_OUT.split(found)
    if not rest:
        assert found == whole
        return
    lines, size = (int(each.replace(b",", b"")) for each in rest[:2])
    last = rest[2]
    assert whole.startswith(first)
    assert whole.endswith(last)
    assert len(first) + size + len(last) == len(whole)
    assert whole.count(b"\n") == first.count(b"\n") + lines + last.count(b"\n")
    assert len(first) <= 100
    assert 0 < len(last) <= 120


def test_ranks_print_through_pipes_and_never_wait_for_a_full_disk(tmp_path: Path) -> None:
    outputs = Outputs()
    paths = [tmp_path / "rank-0.log", tmp_path / "rank-1.log"]
    writes = [outputs.pipe(path) for path in paths]
    os.write(writes[0], b"begun\n")
    outputs.read()
    with room(70):
        os.write(writes[1], b"x" * 80 + b"\n")
        outputs.read()
    for write in writes:
        os.write(write, b"last\n")
        os.close(write)
    outputs.close()
    assert logged(paths[0]) == b"begun\nlast\n"
    assert logged(paths[1]) == b"x" * 70 + b"\n[... 1 lines, 11 bytes, are left out ...]\nlast\n"
    assert last_lines(paths[0]) == "  begun\n  last"
    assert last_lines(tmp_path / "rank-2.log") == ""
