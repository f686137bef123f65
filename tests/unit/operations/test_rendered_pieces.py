"""Rendered pieces as files, which other tools find by their endings."""

from __future__ import annotations

from pathlib import Path

import pytest

from mainspring.core.errors import Conflict
from mainspring.deploy.targets.model import Piece
from mainspring.operations.deploying import write


def test_objects_of_json_have_their_ending(tmp_path: Path) -> None:
    contents = {
        "Service/shop": b'{\n  "kind": "Service"\n}', "File/board.json": b"{}",
        "File/shop.service": b"[Unit]\n", "File/monitoring/shop.yml": b"{}", "Service/shop.v2": b"{}",
    }  # fmt: skip
    pieces = [Piece(id=name, content=content) for name, content in contents.items()]
    written = write(pieces, tmp_path / "out")
    assert [str(each.relative_to(tmp_path)) for each in written] == [
        "out/Service/shop.json", "out/File/board.json", "out/File/shop.service",
        "out/File/monitoring/shop.yml", "out/Service/shop.v2.json",
    ]  # fmt: skip
    assert [each.read_bytes() for each in written] == [each.content for each in pieces]
    with pytest.raises(Conflict, match="not empty"):
        write(pieces, tmp_path / "out")
