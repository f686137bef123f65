"""The values of a model card (Mitchell et al. 2019, https://arxiv.org/abs/1810.03993)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fact:
    """Something known, in words."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that is not known. A card with a required one is not complete."""

    section: str
    what: str
    fix: str
    required: bool = True


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric on held-out rows, and between which values it lies; `None` where that cannot be said."""

    metric: str
    value: float
    low: float | None
    high: float | None
    baseline: float | None = None  # of the baseline, on the same rows
    higher_is_better: bool = True


@dataclass(frozen=True, slots=True)
class Group:
    """The held-out rows with one value of a feature; `value` is `None` where it was not known."""

    value: str | None
    rows: int
    metrics: tuple[Estimate, ...]


@dataclass(frozen=True, slots=True)
class Slice:
    """The held-out rows by the values of one feature, the largest groups first. The others are only counted."""

    feature: str
    groups: tuple[Group, ...]
    left_out_groups: int
    left_out_rows: int


@dataclass(frozen=True, slots=True)
class Performance:
    """How good a model is on its held-out rows."""

    rows: int
    metrics: tuple[Estimate, ...]
    slices: tuple[Slice, ...]
    smallest_group: int  # rows that a group of a slice has at least
    method: str  # of the intervals


@dataclass(frozen=True, slots=True)
class Resources:
    """What a training took; `None` where it is not known. The methods say how an estimate was made."""

    seconds: float | None = None
    energy_wh: float | None = None
    energy_method: str = ""
    cost: float | None = None
    currency: str = ""
    cost_method: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """Somebody's own words, in Markdown."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Card:
    """Everything that is known of a version, and what is not."""

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

    @property
    def complete(self) -> bool:
        """Whether nothing is missing that a card must have."""
        return not any(gap.required for gap in self.gaps)
