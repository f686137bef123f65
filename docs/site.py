"""Builds the documentation's site in build/docs/site: `make docs`.

Links are written for the files as they lie in the repository, so that they work on a code forge. Here a link that leads
to a page at another address is rewritten. Any other that leaves docs/ stays, and fails the build.
"""

from __future__ import annotations

import ast
import json
import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

DOCS = Path(__file__).parent
ROOT = DOCS.parent
API = "reference/python.md"
OPENED = "mainspring.operations.opened.OpenedProject"  # what `ms.open` returns
# The pages of the site that lie elsewhere, or are no Markdown: path in the repository, address in the site.
ADDRESSES = {
    "README.md": "project/readme.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "LICENSE": "project/license.md",
    "oip-conformance/README.md": "project/oip-conformance.md",
    "edge-runtime/README.md": "project/edge-runtime.md",
    "examples/flights": "examples/flights.md",
    "examples/fraud": "examples/fraud.md",
    **{
        path.relative_to(ROOT).as_posix(): path.relative_to(DOCS).with_suffix(".md").as_posix()
        for path in DOCS.rglob("*.ipynb")
    },
}
# The sections of the Python reference, by the modules that the public names come from.
SECTIONS = {
    "Projects": "mainspring.operations",
    "Types": "mainspring.core.schema",
    "Data": "mainspring.data.model",
    "Streams": "mainspring.data.streams",
    "Checks": "mainspring.data.checks",
    "Features": "mainspring.features",
    "Expressions": "mainspring.core.expr",
    "Models": "mainspring.training",
    "Gates": "mainspring.training.gates",
    "Search": "mainspring.training.space",
    "Metrics and thresholds": "mainspring.stats",
    "Endpoints": "mainspring.serving",
    "Quotas": "mainspring.security.quota",
    "Budgets": "mainspring.cost.budgets.declaring",
    "Teams": "mainspring.cost.teams",
    "Language models": "mainspring.llm",
    "Circuit breakers": "mainspring.core.circuit_breaker",
    "Logs of predictions": "mainspring.ledger",
    "Rollouts": "mainspring.delivery",
    "Guards": "mainspring.delivery.rollout.guards",
    "Monitors": "mainspring.monitoring",
    "Objectives": "mainspring.monitoring.service.objectives",
    "Actions": "mainspring.monitoring.incidents.actions",
    "Receivers of messages": "mainspring.monitoring.notify.declaring",
    "Jobs and pipelines": "mainspring.jobs",
    "Collections": "mainspring.vectors",
    "Chunkers": "mainspring.vectors.chunking.declaring",
    "Errors": "mainspring.core.errors",
}
_FENCED = re.compile(r"(^ *```.*?^ *```$)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()([^)\s#]+)")
_FETCHED = re.compile(r"<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)=[\"']?((?:https?:)?//[^\"'\s>]+)")
_NAMED = re.compile(r"\b(?:href|src)=(?:\"([^\"]*)\"|'([^']*)'|([^\s>\"']+))")
_LINES = 24  # of a notebook's result
_SHOWN = {".toml": "toml", ".py": "python"}


def pages() -> dict[str, str]:
    """Return the Markdown of every page of the site, by its address."""
    written = {path.relative_to(ROOT).as_posix(): path for path in DOCS.rglob("*.md")}
    return {
        **{
            _address(origin) or "": relinked(path.read_text(encoding="utf-8"), origin)
            for origin, path in written.items()
        },
        **{address: _made(origin) for origin, address in ADDRESSES.items()},
        API: "\n".join(_api()),
    }


def _address(path: str) -> str | None:
    """The page of a path in the repository; for a file of an example the example's."""
    parts = path.split("/")
    if parts[0] == "examples" and len(parts) > 1:
        path = "/".join(parts[:2])
    return ADDRESSES.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)


def relinked(markdown: str, origin: str) -> str:
    """Return the Markdown of a file, given by its path in the repository, with the links that its page needs."""
    here = _address(origin)
    assert here is not None, origin

    def link(found: re.Match[str]) -> str:
        page = _address(posixpath.normpath(posixpath.join(posixpath.dirname(origin), found[1])))
        if "://" in found[1] or page is None:
            return found[1]
        return posixpath.relpath(page, posixpath.dirname(here) or ".")

    parts = _FENCED.split(markdown)
    return "".join(_session(part) if number % 2 else _LINK.sub(link, part) for number, part in enumerate(parts))


def _session(block: str) -> str:
    """Return a block with prompts as a session, of which the site copies the commands alone."""
    return block.replace("```bash", "```console", 1) if re.search(r"^\s*\$ ", block, re.MULTILINE) else block


def _made(origin: str) -> str:
    path = ROOT / origin
    if path.is_dir():
        return "\n\n".join(_example(path)) + "\n"
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        return relinked(_notebook(text), origin)
    return relinked(text, origin) if path.suffix == ".md" else f"# License\n\n```text\n{text}\n```\n"


def _example(folder: Path) -> Iterator[str]:
    """Yield an example's README, or a title, then its files whole."""
    origin = folder.relative_to(ROOT).as_posix()
    readme = folder / "README.md"
    if readme.exists():
        yield relinked(readme.read_text(encoding="utf-8"), f"{origin}/README.md")
    else:
        yield f"# The example of {folder.name}\n\nA whole project: `{origin}`."
    for path in sorted([*folder.glob("*.toml"), *folder.rglob("*.py")]):
        if text := path.read_text(encoding="utf-8").strip():
            yield f"## {path.relative_to(folder).as_posix()}\n\n```{_SHOWN[path.suffix]}\n{text}\n```"


def _notebook(text: str) -> str:
    """Return a notebook as Markdown, each result as text beneath its cell."""
    return "\n\n".join(part for cell in json.loads(text)["cells"] for part in _cell(cell)) + "\n"


def _cell(cell: dict[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    yield source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```"
    for output in cell.get("outputs", []):
        lines = "".join(output["data"]["text/plain"]).splitlines()
        more = ["..."] if len(lines) > _LINES else []
        yield "\n".join(["```text", *lines[:_LINES], *more, "```"])


def _api() -> Iterator[str]:
    """Yield the lines of the Python reference: a directive of mkdocstrings for every public name, by section."""
    sys.path.insert(0, str(ROOT / "src"))
    import mainspring

    yield "# Python API\n\nThe public names and their docstrings, as `import mainspring as ms` gives them. "
    yield "[Definitions](definitions.md) has them in short.\n"
    groups = {home: group for group, home in mainspring._GROUPS.items()}
    homes = {name: mainspring._HOME_OF[name] for name in mainspring.__all__ if name not in mainspring._GROUPS}
    for section, package in SECTIONS.items():
        yield f"## {section}\n"
        if section == "Projects":
            named = "The opened project"
            yield f"::: {OPENED}\n    options:\n      heading: {named}\n      toc_label: {named}\n"
        group = groups.get(package, "")
        if group:
            named = _exported(package)
            also = [name for name in named if homes.get(name) == package]
            yield f"The names of `ms.{group}`." + (f" Also as `ms.NAME`: {', '.join(also)}." if also else "") + "\n"
            for name in (each for each in named if each not in also):
                yield f"::: {package}.{name}\n    options:\n      heading: ms.{group}.{name}\n      toc_label: {name}\n"
        for name, home in homes.items():
            if home == package or (not group and home not in groups and home.startswith(f"{package}.")):
                where = f"ms.{group}.{name}" if group and name.islower() else f"ms.{name}"  # its types are in no group
                renamed = mainspring._RENAMED.get(name)  # the tool reads no name that is assigned
                found = f"{home}.{renamed}" if renamed else f"mainspring.{name}"
                yield f"::: {found}\n    options:\n      heading: {where}\n      toc_label: {name}\n"


def _exported(module: str) -> list[str]:
    """Return the `__all__` of a module of the package, which is not imported: it may need what is not installed."""
    tree = ast.parse((ROOT / "src" / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    found: list[str] = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["__all__"]
    )
    return found


def configuration() -> str:
    """Return Zensical's configuration, with the pages that its navigation names by a star or by another path."""
    text = (DOCS / "zensical.toml").read_text(encoding="utf-8")
    for starred in re.findall(r'"([^"]+\*[^"]*)"', text):
        found = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.glob(starred))
        text = text.replace(f'"{starred}"', ", ".join(f'"{name}"' for name in found))
    for origin, address in ADDRESSES.items():
        text = text.replace(f'"{origin.removeprefix("docs/")}"', f'"{address}"')
    return text


def lay_out(folder: Path) -> None:
    """Write the pages, the pictures and the configuration, in the place of what an earlier call wrote."""
    shutil.rmtree(folder / "pages", ignore_errors=True)
    for part in ("assets", "images"):
        shutil.copytree(DOCS / part, folder / "pages" / part)
    for address, markdown in pages().items():
        path = folder / "pages" / address
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(markdown, encoding="utf-8")
    (folder / "zensical.toml").write_text(configuration(), encoding="utf-8")


def fetched(html: str) -> list[str]:
    """Return what a page would load from another site."""
    return _FETCHED.findall(html)


def lost(page: Path, html: str) -> list[str]:
    """Return the files that a page names and that are not beside it. Zensical itself looks at links to pages only."""
    named = {unquote(next(filter(None, each), "").partition("#")[0].partition("?")[0]) for each in _NAMED.findall(html)}
    local = [name for name in named if name and not name.startswith("/") and not re.match(r"[a-z]+:", name)]
    return sorted(name for name in local if not (page.parent / name).exists())


def main(folder: Path) -> int:
    """Build the site. Return 0, or what Zensical exits with, or 1 if a page loads from elsewhere or names no file."""
    lay_out(folder)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "-f", str(folder / "zensical.toml")]
    built = subprocess.run(command, check=False)
    found = []
    for page in sorted((folder / "site").rglob("*.html")):
        html, name = page.read_text(encoding="utf-8"), page.relative_to(folder)
        found += [f"{name} loads {url}" for url in fetched(html)]
        found += [f"{name} leads to {target}, which is not a page" for target in lost(page, html)]
    sys.stderr.writelines(f"{line}\n" for line in found)
    return built.returncode or bool(found)


if __name__ == "__main__":
    sys.exit(main(ROOT / "build" / "docs"))
