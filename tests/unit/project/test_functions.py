"""Functions of a project: what a digest covers, and that what was digested is what runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mainspring.core.errors import Corrupt, Invalid
from mainspring.project.definitions.functions import load_code, source_digest
from mainspring.registry.model import Code

FILES = {
    "pkg_g8/__init__.py": "LEVEL = 1\n",
    "pkg_g8/main.py": (
        "import math\n"
        "from pkg_g8 import near\n"
        "from .deep.far import FAR\n\n"
        "def answer(x):\n    import pkg_g8.late as late\n    return x + near.NEAR + FAR + late.LATE\n\n"
        "value = 5\n"
    ),
    "pkg_g8/near.py": "NEAR = 10\n",
    "pkg_g8/late.py": "LATE = 1000\n",
    "pkg_g8/deep/__init__.py": "",
    "pkg_g8/deep/far.py": "from ..near import NEAR\nFAR = NEAR * 10\n",
    "pkg_g8/other.py": "OTHER = 1\n",
}
FUNCTION = "pkg_g8.main:answer"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("pkg_g8")]:
        del sys.modules[name]
    if str(tmp_path) in sys.path:
        sys.path.remove(str(tmp_path))


def code(root: Path, function: str = FUNCTION) -> Code:
    return Code(function, source_digest(root, function))


def test_the_function_is_found_and_runs(root: Path) -> None:
    assert load_code(root, code(root))(1) == 1 + 10 + 100 + 1000


@pytest.mark.parametrize("name", [name for name in FILES if name != "pkg_g8/other.py"])
def test_a_change_of_any_module_that_it_imports_is_seen(root: Path, name: str) -> None:
    registered = code(root)
    with (root / name).open("a") as file:
        file.write("# changed\n")
    with pytest.raises(Corrupt, match="has changed since it was registered"):
        load_code(root, registered)
    assert load_code(root, code(root))(1) == 1111


def test_a_change_elsewhere_is_not(root: Path) -> None:
    registered = code(root)
    (root / "pkg_g8/other.py").write_text("OTHER = 2\n")
    assert load_code(root, registered)(1) == 1111


def test_what_runs_is_what_was_digested_and_no_cache(root: Path) -> None:
    """A change within the second and of the same size is one that a cache of bytecode does not see."""
    first = load_code(root, code(root))
    (root / "pkg_g8/near.py").write_text("NEAR = 20\n")
    second = load_code(root, code(root))
    assert (first(0), second(0)) == (1110, 20 + 200 + 1000)


def test_a_module_that_moved_away_is_seen(root: Path) -> None:
    registered = code(root)
    (root / "pkg_g8/near.py").unlink()
    with pytest.raises(Corrupt, match="has changed"):
        load_code(root, registered)


@pytest.mark.parametrize(
    "function",
    [
        "os:system",
        "json:loads",
        "pkg_g8.absent:f",
        "pkg_g8/main.py:answer",
        "..pkg_g8:f",
        "pkg_g8.main",
        "",
        ":",
        "a:b:c",
    ],
)
def test_only_the_projects_own_modules_are_named(root: Path, function: str) -> None:
    with pytest.raises(Invalid):
        source_digest(root, function)
    with pytest.raises(Corrupt):
        load_code(root, Code(function, "0" * 64))


def test_a_link_out_of_the_project_is_no_module_of_it(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "evil.py"
    outside.write_text("def f(x): return x\n")
    (root / "pkg_g8/evil.py").symlink_to(outside)
    with pytest.raises(Invalid, match="no module"):
        source_digest(root, "pkg_g8.evil:f")


def test_nothing_is_imported_to_take_a_digest(root: Path) -> None:
    (root / "pkg_g8/loud.py").write_text("raise SystemExit('imported')\n")
    source_digest(root, "pkg_g8.loud:f")
    assert "pkg_g8" not in sys.modules


def test_what_cannot_be_imported_or_called_says_so(root: Path) -> None:
    (root / "pkg_g8/bad.py").write_text("1 / 0\n")
    with pytest.raises(Corrupt, match="ZeroDivisionError"):
        load_code(root, code(root, "pkg_g8.bad:f"))
    for name in ("absent", "value"):
        with pytest.raises(Corrupt, match=f"no function '{name}'"):
            load_code(root, code(root, f"pkg_g8.main:{name}"))
    (root / "pkg_g8/broken.py").write_text("def f(:\n")
    with pytest.raises(Invalid, match="cannot be parsed"):
        source_digest(root, "pkg_g8.broken:f")
