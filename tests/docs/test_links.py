"""Links lead somewhere, and no page says where it was written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kit.pages import DOCS, ROOT, name_of, pages

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_OURS = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")


def anchors(page: Path) -> set[str]:
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    return {
        re.sub(r"[^\w\- ]", "", heading.lower().replace("`", "")).strip().replace(" ", "-")
        for heading in _HEADING.findall(text)
    }


def links(page: Path) -> list[str]:
    return _LINK.findall(_FENCED.sub("", page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", [*pages(), *(ROOT / name for name in _OURS)], ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name_of(page)} links to {link}"
        if anchor:
            assert anchor in anchors(target), f"{name_of(page)} links to {link}; there are {sorted(anchors(target))}"


def test_every_page_can_be_reached_from_the_first() -> None:
    seen: set[Path] = set()
    waiting = [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        targets = [(page.parent / link.partition("#")[0]).resolve() for link in links(page) if "://" not in link]
        waiting += [target for target in targets if target.suffix == ".md" and target.is_file()]
    assert not [name_of(page) for page in DOCS.rglob("*.md") if page not in seen]


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_a_page_names_no_machine_and_no_registry(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for wrong in (
        r"/tmp/",
        r"(?<!\w)/(work|root|Users)/",
        r"pypi\.org",
        r"pythonhosted",
        r"--index-url",
        r"registry\.npmjs",
    ):
        assert not re.search(wrong, text), f"{name_of(page)} says {wrong}"
