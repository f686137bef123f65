"""Everything that must be refused is refused; without assertions: tests/integration/test_without_assertions.py."""

import pytest

from kit import refusals


@pytest.mark.parametrize(("kind", "call"), [pytest.param(k, c, id=name) for name, k, c in refusals.refusals()])
def test_it_is_refused(kind, call) -> None:
    with pytest.raises(kind):
        call()
