"""A restore that was interrupted: nothing else writes until it is finished, and readers say so."""

from __future__ import annotations

from pathlib import Path

import pytest

from mainspring.cli import exits
from mainspring.cli.main import cli
from mainspring.core.locks import FileLocks
from mainspring.project.restoring import (
    RESTORING,
    SCRATCH,
    SCRATCH_LOCK,
    Restoring,
    end_restoring,
    remove_scratch,
    write_restoring,
)

MARK = Restoring("/backups/monday", "id", "prod", copied=True)


def _said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Return the exit code of a command, and what it told on standard error."""
    code = exits.OK
    try:
        cli.main([*arguments], prog_name="mainspring", standalone_mode=False)
    except SystemExit as error:
        code = int(error.code or 0)
    return code, capsys.readouterr().err


def test_an_unfinished_restore_refuses_writers_and_warns_readers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mainspring.toml").write_text('name = "shop"\nmodules = ["restored_shop"]\n')
    (tmp_path / "restored_shop.py").touch()
    state, at = tmp_path / ".mainspring", ["--project", str(tmp_path)]
    state.mkdir()
    write_restoring(state, MARK)
    for command in (["up"], ["data", "commit"], ["erase", "--again"], ["evidence", "gdpr"]):
        code, said = _said(capsys, *command, *at)
        assert (code, f"{state / RESTORING} says" in said) == (exits.CONFLICT, True)
        assert "run `mainspring restore /backups/monday --profile prod`" in said
    for reading in (["subject", "holds"], ["status"]):
        code, said = _said(capsys, *reading, *at)
        assert (code, said.startswith("Warning: the restore of /backups/monday is not finished")) == (exits.OK, True)
    end_restoring(state)
    assert _said(capsys, "subject", "holds", *at) == (exits.OK, "")


def test_databases_in_clear_are_removed_once_nobody_works_on_them(tmp_path: Path) -> None:
    locks, scratch = FileLocks(tmp_path / "locks"), tmp_path / SCRATCH
    remove_scratch(tmp_path, locks)
    scratch.mkdir()
    (scratch / "catalog.db").touch()
    with locks.hold(SCRATCH_LOCK):
        remove_scratch(tmp_path, FileLocks(tmp_path / "locks"))
        assert scratch.exists()
    remove_scratch(tmp_path, locks)
    assert not scratch.exists()
