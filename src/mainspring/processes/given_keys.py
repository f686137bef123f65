"""Keys that a container takes over from its place."""

from __future__ import annotations

from mainspring.core.errors import Invalid
from mainspring.core.files import write_once
from mainspring.core.settings import Settings
from mainspring.security.secrets import read_private


def take_keys(settings: Settings) -> None:
    """Copy the keys of an installation into the state folder, where the settings name a folder of them.

    A file that is there already stays: the installation adds to some, such as spent privacy budgets.

    Raises:
        Invalid: The folder is missing or empty, or others can read a file of it.
    """
    if settings.keys_folder is None:
        return
    try:
        given = sorted(each for each in settings.keys_folder.iterdir() if each.is_file())
    except OSError as error:
        raise Invalid(
            f"The keys {settings.keys_folder} cannot be read: {error.strerror}.",
            fix="put a copy of .mainspring/keys there, for the container's user.",
        ) from None
    if not given:
        raise Invalid(f"There is no key in {settings.keys_folder}.", fix="copy the files of .mainspring/keys into it.")
    folder = settings.state / "keys"
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    for each in given:
        write_once(folder / each.name, read_private(each, "key"))
