"""A column of training values, and later values compared with them."""

from __future__ import annotations

from mainspring.stats.column_tests import Comparison, compare
from mainspring.stats.reference import ColumnReference, Values, profile
from mainspring.stats.sketches import Ruler, Sketch


class Trained:
    """The reference of one column."""

    def __init__(self, values: Values) -> None:
        self.reference = profile({"x": values})
        self.ruler = Ruler(self.reference)

    @property
    def column(self) -> ColumnReference:
        return self.reference.columns["x"]

    def sketch(self, values: Values) -> Sketch:
        return self.ruler.sketch({"x": values})

    def compare(self, values: Values) -> Comparison:
        return compare(self.column, self.sketch(values), "x")
