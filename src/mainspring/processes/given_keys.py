"""Keys that a container takes over from its place. By itself the module copies them before another program starts."""

from __future__ import annotations

import sys
from pathlib import Path

from mainspring.core.errors import Invalid
from mainspring.core.files import write_once
from mainspring.core.settings import Settings
from mainspring.security.secrets import read_private


def take_keys(settings: Settings) -> None:
    """Copy the keys of an installation into the state folder, where the settings name a folder of them.

    Raises:
        Invalid: The folder is missing or empty, or others can read a file of it.
    """
    if settings.keys_folder is not None:
        _copy(settings.keys_folder, settings.state / "keys")


def _copy(source: Path, folder: Path) -> None:
    """Copy keys. A file that is there already stays: the installation adds to some, such as spent privacy budgets."""
    try:
        given = sorted(each for each in source.iterdir() if each.is_file())
    except OSError as error:
        raise Invalid(
            f"The keys {source} cannot be read: {error.strerror}.",
            fix="put a copy of .mainspring/keys there, for the container's user.",
        ) from None
    if not given:
        raise Invalid(f"There is no key in {source}.", fix="copy the files of .mainspring/keys into it.")
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    for each in given:
        write_once(folder / each.name, read_private(each, "key"))


if __name__ == "__main__":
    try:
        _copy(Path(sys.argv[1]), Path(sys.argv[2]))
    except Invalid as error:
        raise SystemExit(f"{error}") from None
