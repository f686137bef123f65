"""Every helper of the tests lies in one package, whose page names all of them."""

from __future__ import annotations

import re
from pathlib import Path

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
    loose = {path.name for path in KIT.parent.rglob("*.py") if KIT not in path.parents and "typing" not in path.parts}
    allowed = re.compile(r"(test_\w+|conftest|\w+_victim)\.py")
    assert [name for name in sorted(loose) if not allowed.fullmatch(name)] == []
