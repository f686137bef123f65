"""Ids by their beginning."""

from __future__ import annotations

import pytest

from mainspring.cli.ids import whole_id
from mainspring.core.errors import Invalid

IDS = ("01m8be2065zc3r951j33fy83ef", "01m8be2065zc3r951j33fy83eg", "01m8bf0000zc3r951j33fy83ef")


def test_the_beginning_of_one_id_is_that_id() -> None:
    assert whole_id("job", "01m8bf", IDS) == IDS[2]
    assert whole_id("job", "01M8BF", IDS) == IDS[2]
    assert whole_id("job", IDS[0], iter(())) == IDS[0]


def test_the_beginning_of_several_is_refused_with_some_of_them() -> None:
    with pytest.raises(Invalid, match=f"2 jobs begin with '01m8be': {IDS[0]}, {IDS[1]}"):
        whole_id("job", "01m8be", IDS)


@pytest.mark.parametrize("given", ["", "zz"])
def test_another_text_is_left_to_whoever_looks_it_up(given: str) -> None:
    assert whole_id("job", given, IDS) == given
