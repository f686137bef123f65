"""The example projects that are installed with the package, and their copies in a user's folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import mainspring
from mainspring.core.errors import Conflict, NotFound
from mainspring.core.settings import PROJECT_FILE

PAGES = ("tutorial", "howto", "explanation")  # parts of the documentation


def project_folder(folder: Path, name: str = "flights") -> Path:
    """Return the demo's project: `folder` if it contains one, else `folder/NAME`, copied there if missing.

    Raises:
        Conflict: `folder/NAME` is something else.
        NotFound: The installation lacks the example.
    """
    if (folder / PROJECT_FILE).is_file():
        return folder
    target = folder / name
    if (target / PROJECT_FILE).is_file():
        return target
    if target.exists():
        raise Conflict(f"{target} exists and is not a project.", fix="run the demo in another folder.")
    shutil.copytree(_installed(Path("examples") / name), target, ignore=_LEFT_OUT)
    return target


def copy_pages(folder: Path) -> None:
    """Copy the package's documentation to `folder/pages`, unless that is there.

    Raises:
        NotFound: The installation lacks it.
    """
    pages = folder / "pages"
    if pages.exists():
        return
    making = folder / "pages.new"
    shutil.rmtree(making, ignore_errors=True)
    for part in PAGES:
        shutil.copytree(_installed(Path("docs") / part), making / part, ignore=_LEFT_OUT)
    making.rename(pages)


def _installed(path: Path) -> Path:
    """Return a folder of the wheel, or of the checkout that is installed from."""
    package = Path(mainspring.__file__).parent
    for place in (package, package.parent.parent):
        if (place / path).is_dir():
            return place / path
    raise NotFound("This installation lacks the example project.", fix="install mainspring from its wheel.")


_LEFT_OUT = shutil.ignore_patterns(".mainspring", "__pycache__", "*.ipynb")
