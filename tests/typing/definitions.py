"""A user's definitions, as a type checker sees them. Checked by tests/integration/test_typing.py, never run."""

from typing import assert_type

import mainspring as ms
from mainspring.data.checks import Check
from mainspring.training.gate_kinds import Gate
from mainspring.training.space import Choice, Numbers

customer = ms.Entity("customer", keys={"customer": ms.String})
orders = ms.Source("orders", schema={"customer": ms.String, "late": ms.Boolean}, event_time="at")

assert_type(ms.checks.not_null("customer"), Check)
assert_type(ms.not_null("customer"), Check)
assert_type(ms.checks.fresh("2h"), Check)
assert_type(ms.gates.beats("auc", by=0.01), Gate)
assert_type(ms.beats("auc"), Gate)
assert_type(ms.gates.complete_card(), Gate)
assert_type(ms.search.integer(2, 8, log=True), Numbers)
assert_type(ms.search.choice("a", None), Choice)
assert_type(ms.Search("auc", space=ms.search.space(depth=ms.search.integer(2, 8))), ms.Search)


def names(view: ms.FeatureView, model: ms.Model) -> list[str]:
    assert_type(view.names, tuple[str, ...])
    return [view.name, model.name]


ms.checks.in_range(5)  # type: ignore[arg-type]
