"""Lists of prices: those that are asked for, and names that the catalogue lacks."""

from __future__ import annotations

from typing import Any

import pytest

from kit.console import flights
from mainspring.core.errors import NotFound
from mainspring.operations.prices import list_offers


@pytest.mark.parametrize(
    ("asked", "fix"),
    [
        ({"gpu": "H300"}, "H100"), ({"provider": "amazon"}, "aws"), ({"region": "us-east-9"}, "us-east-1"),
        ({"provider": "azure", "region": "us-east-1"}, "eastus"),
    ],
)  # fmt: skip
def test_a_name_that_the_catalogue_lacks_is_told(asked: dict[str, Any], fix: str) -> None:
    with pytest.raises(NotFound, match="The catalogue has no") as unknown:
        list_offers(flights.Project(), **asked)
    assert fix in (unknown.value.fix or "")


def test_a_size_that_nobody_offers_is_an_empty_list() -> None:
    project = flights.Project()
    assert list_offers(project, vcpus=100_000).of == 0
    assert {each.gpu for each in list_offers(project, gpu="l4", provider="google", region="us-east1").offers} == {"L4"}
    assert list_offers(project, gpu="any").of + list_offers(project, gpu="none").of == list_offers(project).of
