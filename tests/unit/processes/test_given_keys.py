"""Keys of a container, from the folder that its place gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mainspring.core.errors import Invalid
from mainspring.processes.given_keys import take_keys
from mainspring.project.settings import load_settings


def test_keys_are_copied_once_for_the_user_alone(tmp_path: Path) -> None:
    (tmp_path / "mainspring.toml").write_text('name = "shop"\n')
    settings = replace(load_settings(tmp_path, environment={}), keys_folder=tmp_path / "given")
    own = settings.state / "keys"
    with pytest.raises(Invalid, match=r"given cannot be read.*copy of \.mainspring/keys"):
        take_keys(settings)
    (tmp_path / "given").mkdir()
    with pytest.raises(Invalid, match="no key"):
        take_keys(settings)
    pepper = tmp_path / "given" / "pepper"
    pepper.write_bytes(b"1")
    pepper.chmod(0o644)
    with pytest.raises(Invalid, match=r"readable by other users"):
        take_keys(settings)
    assert not [*own.iterdir()]
    pepper.chmod(0o400)
    take_keys(settings)
    assert ((own / "pepper").read_bytes(), (own / "pepper").stat().st_mode & 0o777) == (b"1", 0o600)
    (own / "pepper").write_bytes(b"2")
    take_keys(settings)
    assert (own / "pepper").read_bytes() == b"2", "what the installation wrote since stays"
    take_keys(replace(settings, keys_folder=None))
