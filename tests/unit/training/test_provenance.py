"""What a run says of the code and packages it was made with."""

from __future__ import annotations

import importlib
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mainspring.core.errors import Invalid
from mainspring.training.runs.provenance import (
    changed_files,
    code_diff,
    code_version,
    environment,
    environment_summary,
    files_digest,
    module_files,
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "flights"
    (root / "flights").mkdir(parents=True)
    (root / "mainspring.toml").write_text("name = 'flights'\n")
    (root / "flights" / "model.py").write_text("x = 1\n")
    return root


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_outside_git_there_is_no_commit(project: Path) -> None:
    assert code_version(project) == ""


def test_the_commit_and_whether_it_was_changed(project: Path) -> None:
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "commit", "-qm", "first")
    commit = git(project, "rev-parse", "HEAD")
    assert code_version(project) == commit

    (project / ".mainspring").mkdir()
    (project / ".mainspring" / "state.db").write_text("x")
    assert code_version(project) == commit

    (project / "flights" / "model.py").write_text("x = 2\n")
    assert code_version(project) == f"{commit}+changed"


def committed(project: Path) -> str:
    """Put the folder above the project under git."""
    git(project.parent, "init", "-q")
    git(project.parent, "add", ".")
    git(project.parent, "commit", "-qm", "first")
    return git(project, "rev-parse", "HEAD")


def test_the_diff_makes_the_files_again(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (project / "old.sql").write_text("select 1\n")
    (project / "image.bin").write_bytes(bytes(range(256)))
    (project / ".gitignore").write_text("ignored.py\n")
    commit = committed(project)
    assert code_diff(project) == b""

    (project / "flights" / "model.py").write_text("x = 2\n")
    (project / "flights" / "größe new.py").write_text("y = 'ü'\n")
    (project / "ignored.py").write_text("z = 3\n")
    (project / "rows.csv").write_text("a,b\n")
    (project / "image.bin").write_bytes(bytes(range(255, -1, -1)))
    (project / "old.sql").unlink()
    (project.parent / "beside.py").write_text("not of the project\n")
    git(project, "add", "flights")  # staged or not is the same
    (project / ".mainspring").mkdir()
    (project / ".mainspring" / "left.py").write_text("state\n")

    again = tmp_path_factory.mktemp("again")
    git(project.parent, f"--work-tree={again}", "checkout", commit, "--", ".")
    diff = code_diff(project, used=[project / "flights" / "größe new.py"])
    subprocess.run(["git", "-C", str(again), "apply", "-"], input=diff, check=True)
    (project / "ignored.py").unlink()
    assert files_digest(again / "flights") == files_digest(project)
    assert (again / "flights" / "image.bin").read_bytes() == (project / "image.bin").read_bytes()
    assert not (again / "beside.py").exists()
    assert not (again / "flights" / "rows.csv").exists()


def test_of_files_that_git_does_not_know_only_imported_modules_are_kept(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = committed(project)
    (project / "flights" / "fresh_module.py").write_text("FRESH = 1\n")
    (project / "flights" / "local_secrets.py").write_text("TOKEN = 'hunter2'\n")
    (project / "secrets.toml").write_text("token = 'hunter3'\n")
    monkeypatch.syspath_prepend(project / "flights")
    importlib.import_module("fresh_module")
    diff = code_diff(project)
    assert b"hunter" not in diff
    assert b"local_secrets.py" in diff
    assert b"secrets.toml" in diff
    again = tmp_path_factory.mktemp("again")
    git(project.parent, f"--work-tree={again}", "checkout", commit, "--", ".")
    subprocess.run(["git", "-C", str(again), "apply", "-"], input=diff, check=True)
    assert (again / "flights" / "flights" / "fresh_module.py").read_text() == "FRESH = 1\n"
    assert not (again / "flights" / "secrets.toml").exists()


def test_outside_git_and_before_the_first_commit_there_is_no_diff(project: Path) -> None:
    assert code_diff(project) == b""
    git(project, "init", "-q")
    assert code_diff(project) == b""


def test_a_diff_beyond_reason_is_refused(project: Path) -> None:
    committed(project)
    for number in range(501):
        (project / f"n{number}.py").touch()
    with pytest.raises(Invalid, match="501 code files"):
        code_diff(project)


def test_a_repository_runs_no_program_of_its_choice(project: Path) -> None:
    git(project, "init", "-q")
    git(project, "config", "core.fsmonitor", f"touch {project / 'ran'}; false")
    git(project, "add", "flights")
    (project / "ran").unlink(missing_ok=True)
    code_version(project)
    assert not (project / "ran").exists()


def test_the_digest_is_of_names_and_contents(project: Path) -> None:
    before = files_digest(project)
    assert files_digest(project) == before

    (project / "flights" / "model.py").write_text("x = 2\n")
    changed = files_digest(project)
    (project / "flights" / "model.py").rename(project / "flights" / "other.py")
    renamed = files_digest(project)
    (project / "flights" / "other.py").write_text("")
    (project / "flights" / "model.py").write_text("x = 2\n")
    assert len({before, changed, renamed, files_digest(project)}) == 4


def test_state_data_and_environments_do_not_count(project: Path) -> None:
    before = files_digest(project)
    for name in (".mainspring/x.py", ".git/x.py", "__pycache__/x.py", "env/lib/x.py"):
        path = project / name
        path.parent.mkdir(parents=True)
        path.write_text("y")
    (project / "env" / "pyvenv.cfg").write_text("")
    (project / "data.csv").write_text("1")
    (project / "gone.py").symlink_to("/nonexistent")
    assert files_digest(project) == before


def test_the_environment_names_every_package() -> None:
    found = environment()
    installed = {package.metadata["Name"]: package.version for package in metadata.distributions()}
    assert found == {"python": platform.python_version(), **installed}
    assert {"numpy", "msgspec", "scikit-learn", "pytest"} <= set(found)
    assert f"numpy={found['numpy']}" in environment_summary(found)
    assert "pytest=" not in environment_summary(found)


def test_modules_that_answer_no_question_are_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ImportError(f"{name} needs what is not installed")

    lazy, ours = ModuleType("lazy"), ModuleType("ours")
    lazy.__getattr__ = absent  # type: ignore[method-assign]
    ours.__file__ = str(tmp_path / "ours.py")
    for each in (lazy, ours):
        monkeypatch.setitem(sys.modules, each.__name__, each)
    assert module_files(tmp_path) == {}
    (tmp_path / "ours.py").write_text("A = 1\n")
    found = module_files(tmp_path)
    (tmp_path / "ours.py").unlink()
    assert changed_files(found) == list(found) == [tmp_path / "ours.py"]
