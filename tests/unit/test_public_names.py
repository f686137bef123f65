"""The package's public names, in their groups and without them."""

from __future__ import annotations

import subprocess
import sys

import pytest

import mainspring as ms

GROUPS = {
    "checks": ["fresh", "in_range", "length", "matches", "none_of", "not_null", "one_of", "unique"],
    "gates": ["approved", "at_least", "at_most", "beats", "complete_card"],
    "search": ["choice", "integer", "log_uniform", "space", "uniform"],
}


@pytest.mark.parametrize(("group", "names"), GROUPS.items())
def test_a_group_holds_the_flat_names(group: str, names: list[str]) -> None:
    assert group in ms.__all__
    grouped = getattr(ms, group).__all__
    assert grouped == sorted(grouped)
    assert [name for name in grouped if name in ms.__all__] == names
    for name in names:
        assert getattr(getattr(ms, group), name) is getattr(ms, name)


def test_a_group_is_not_loaded_before_it_is_used() -> None:
    code = "import mainspring, sys; print([name for name in sys.modules if name.startswith('mainspring.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['mainspring.core', 'mainspring.core.environment', 'mainspring.core.version']"


def test_what_the_decorators_build_has_public_types() -> None:
    entity = ms.Entity("customer", keys={"customer": ms.String})
    orders = ms.Source("orders", schema={"customer": ms.String, "late": ms.Boolean}, event_time="at")

    @ms.feature_view(entity=entity, source=orders)
    class Orders:
        orders_1d = ms.count(window="1d")

    @ms.model(
        "late",
        observations=ms.Observations(orders, keys=[entity], at=ms.col("at")),
        features=[Orders],
        label=orders.late,
        task="binary",
    )
    def train(data: ms.TrainingSet, run: ms.Run) -> None: ...

    assert isinstance(Orders, ms.FeatureView)
    assert isinstance(train, ms.Model)
