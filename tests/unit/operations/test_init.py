"""A new project's name is one that Python can import, and that hides nothing."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mainspring.core.errors import Conflict, Invalid
from mainspring.operations.init import create
from mainspring.project.definitions.loading import load_definitions
from mainspring.project.settings import load_settings


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("import", "'import' is a word of Python"),
        ("json", "'json' is a module of Python"),
        ("numpy", "'numpy' is an installed package"),
        ("mainspring", "'mainspring' is an installed package"),
        ("a.b", "'a.b' cannot name a project"),
        ("ünï", "'ünï' cannot name a project"),
        ("1st", "'1st' cannot name a project"),
    ],
)
def test_a_name_that_would_not_work_is_refused_before_anything_is_written(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(Invalid, match=said) as refused:
        create(tmp_path / name)
    assert refused.value.fix
    assert list(tmp_path.iterdir()) == []


def test_what_is_made_loads(tmp_path: Path) -> None:
    root = create(tmp_path / "scaffold-of-a-test")
    definitions = load_definitions(load_settings(root, environment={}))
    assert set(definitions.sources) == {"orders", "outcomes"}
    assert set(definitions.models) == {"order-return"}
    assert set(definitions.endpoints) == {"order-return"}


def test_example_data_is_the_same_at_every_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = create(tmp_path / "steady_shop_of_a_test")
    monkeypatch.syspath_prepend(root)
    data = importlib.import_module("steady_shop_of_a_test.data")
    assert data.orders() == data.orders()
    assert max(row["ordered_at"] for row in data.orders()) < datetime.now(UTC)
    assert {row["order"] for row in data.outcomes()} < {row["order"] for row in data.orders()}


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "shop_of_a_test").mkdir()
    (tmp_path / "shop_of_a_test" / "kept").touch()
    with pytest.raises(Conflict, match="exists and is not empty"):
        create(tmp_path / "shop_of_a_test")
