"""A running process follows the project's policies, and never runs without those that were valid last."""

import logging
import os
import shutil
from pathlib import Path

import pytest

from mainspring.core.errors import Denied, Invalid
from mainspring.security.model import EVERY_ROLE, Action, KeyScope, Kind, Principal
from mainspring.security.policy import CedarAuthoriser
from mainspring.security.policy_files import PolicyFiles

FORBID = '@id("not-b") forbid (principal, action == Action::"model.read", resource == Model::"b");'
ALL = '@id("all") permit (principal, action, resource)'  # without its semicolon
ROOT = Principal("ana", "Ana", frozenset(KeyScope), Kind.USER, roles=EVERY_ROLE)
NOBODY = Principal("bob", "Bob", frozenset(KeyScope), Kind.USER)


class Here:
    def __init__(self, root: Path) -> None:
        self.folder, self.kept, self.seconds = root / "policies", root / "policies.json", 0.0
        self.folder.mkdir()

    def write(self, text: str, name: str = "own.cedar") -> None:
        (self.folder / name).write_text(text, "utf-8")
        self.seconds += 1

    def files(self) -> PolicyFiles:
        return PolicyFiles(self.folder, self.kept, monotonic=lambda: self.seconds)


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


def test_a_changed_file_is_in_force_after_a_second(here: Here) -> None:
    authoriser = CedarAuthoriser("flights", here.files())
    assert authoriser.allows(ROOT, Action.MODEL_READ, "model/b")
    here.write(FORBID)
    assert not authoriser.allows(ROOT, Action.MODEL_READ, "model/b")
    (here.folder / "own.cedar").unlink()
    here.seconds += 1
    assert authoriser.allows(ROOT, Action.MODEL_READ, "model/b")


def test_a_file_with_an_error_leaves_the_old_ones_in_force_and_is_told(here: Here, caplog) -> None:
    here.write(FORBID)
    files = here.files()
    authoriser = CedarAuthoriser("flights", files)
    with caplog.at_level(logging.ERROR):
        here.write(ALL, "more.cedar")
        for action, resource in ((Action.KEYS_MANAGE, "project"), (Action.MODEL_READ, "model/a")):
            with pytest.raises(Denied):
                authoriser.check(NOBODY, action, resource)
        assert not authoriser.allows(ROOT, Action.MODEL_READ, "model/b")
    assert files.trouble is not None
    assert "more.cedar" in files.trouble
    assert caplog.text.count("stay in force") == 1
    here.write(f"{ALL};", "more.cedar")
    assert files.current().own.keys() == {"own.cedar", "more.cedar"}
    assert files.trouble is None


def test_a_start_with_an_error_takes_those_that_were_valid_last(here: Here) -> None:
    here.write(FORBID)
    here.files()
    here.write(ALL)
    files = here.files()
    assert files.current().own == {"own.cedar": FORBID}
    assert files.trouble is not None
    assert here.kept.stat().st_mode & 0o077 == 0


def test_a_first_start_with_an_error_is_refused(here: Here) -> None:
    here.write(ALL)
    with pytest.raises(Invalid, match=r"own\.cedar"):
        here.files()


def test_a_file_that_is_no_text_is_refused(here: Here) -> None:
    (here.folder / "own.cedar").write_bytes(b"\xff\xfe")
    with pytest.raises(Invalid, match="cannot be read"):
        here.files()


def unreadable(folder: Path, monkeypatch) -> None:
    """Refuse the folder, as to a process that is not root once its mode is 0."""
    listed = os.scandir

    def refused(path):
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "scandir", refused)


def a_file(folder: Path, _monkeypatch) -> None:
    shutil.rmtree(folder)
    folder.write_text("no folder")


@pytest.mark.parametrize("lose", [unreadable, a_file, lambda folder, _: shutil.rmtree(folder)])
def test_a_lost_folder_leaves_the_old_ones_in_force_also_after_a_start(here: Here, monkeypatch, lose) -> None:
    here.write(FORBID)
    files = here.files()
    authoriser = CedarAuthoriser("flights", files)
    lose(here.folder, monkeypatch)
    here.seconds += 1
    assert not authoriser.allows(ROOT, Action.MODEL_READ, "model/b")
    again = here.files()
    assert again.current().own == {"own.cedar": FORBID}
    for each in (files, again):
        assert each.trouble is not None
        assert "policies/" in each.trouble
    monkeypatch.undo()
    if here.folder.is_file():
        here.folder.unlink()
    here.folder.mkdir(exist_ok=True)
    here.write(FORBID.replace('"b"', '"c"'))
    assert authoriser.allows(ROOT, Action.MODEL_READ, "model/b")
    assert files.trouble is None


def test_a_folder_that_was_never_there_has_no_policies(here: Here) -> None:
    here.folder.rmdir()
    files = here.files()
    here.seconds += 1
    assert files.current().own == {}
    assert files.trouble is None
