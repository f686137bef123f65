"""Model cards (Mitchell et al. 2019, https://arxiv.org/abs/1810.03993)."""

from __future__ import annotations

from dataclasses import dataclass

from mainspring.stats.fairness.reporting import FairnessReport


@dataclass(frozen=True, slots=True)
class Fact:
    """A known fact, as text."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Gap:
    """A missing fact. A card with a required gap is incomplete."""

    section: str
    what: str
    fix: str
    required: bool = True


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric on held-out rows with its confidence interval; `None` bounds if there is no interval."""

    metric: str
    value: float
    low: float | None
    high: float | None
    baseline: float | None = None  # the baseline's value on the same rows
    higher_is_better: bool = True


@dataclass(frozen=True, slots=True)
class Group:
    """The held-out rows with one value of a feature; `value` is `None` for null."""

    value: str | None
    rows: int
    metrics: tuple[Estimate, ...]


@dataclass(frozen=True, slots=True)
class Slice:
    """The held-out rows grouped by one feature, the largest groups first; the remaining groups are only counted."""

    feature: str
    groups: tuple[Group, ...]
    left_out_groups: int
    left_out_rows: int


@dataclass(frozen=True, slots=True)
class Performance:
    """Performance of a model on its held-out rows."""

    rows: int
    metrics: tuple[Estimate, ...]
    slices: tuple[Slice, ...]
    smallest_group: int  # minimum number of rows of a group
    method: str  # method of the intervals


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval. Rows count as independent: where they are correlated, it is wider."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Importance:
    """Importance of one column.

    Args:
        contribution: Mean absolute contribution to the sum behind the answer, over all outputs; `None` if the model has
            no exact explanation.
        permutation: Increase of the squared error when the column's values are permuted; `None` without labels.
    """

    column: str
    contribution: Interval | None = None
    permutation: Interval | None = None


@dataclass(frozen=True, slots=True)
class Attention:
    """The columns that a model pays attention to, the most important first.

    Args:
        method: Sentences on the numbers.
    """

    importances: tuple[Importance, ...]
    method: str


@dataclass(frozen=True, slots=True)
class Resources:
    """Resources used by a training; `None` if unknown. The methods explain the estimates."""

    seconds: float | None = None
    energy_wh: float | None = None
    energy_method: str = ""
    cost: float | None = None
    currency: str = ""
    cost_method: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the authors' own text, in Markdown."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Card:
    """A model card: the known facts of a version, and the gaps."""

    model: str
    version: str
    digest: str
    aliases: tuple[str, ...]
    made: tuple[Fact, ...]
    words: tuple[Section, ...]
    data: tuple[Fact, ...]
    inputs: tuple[tuple[str, str], ...]  # name and type, for people
    performance: Performance | None
    lineage: tuple[Fact, ...]
    resources: Resources
    gaps: tuple[Gap, ...]
    fairness: tuple[FairnessReport, ...] = ()  # of held-out rows, by the columns that monitors declare
    attention: Attention | None = None

    @property
    def complete(self) -> bool:
        """True if no required fact is missing."""
        return not any(gap.required for gap in self.gaps)
