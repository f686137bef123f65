"""Outputs that callers of an endpoint get of what its model answers."""

from __future__ import annotations

import msgspec

from mainspring.core.definition_registry import expect
from mainspring.core.errors import Invalid
from mainspring.security.quota import check_callers

_MOST_DIGITS = 15


class Outputs(msgspec.Struct, frozen=True, kw_only=True):
    """A policy on the numbers that callers get. The prediction log has them as they are.

    Args:
        digits: Decimals to which numbers are rounded.
        top: Number of classes whose scores are answered, the largest; the others are 0.
        labels: Whether only the class is answered: 1 for it, and 0 for the others. Of a binary model 1 from a
            probability of 0.5 on. Other outputs that are no whole numbers or texts are refused.
        only: Callers for whom it holds, as of `Quota`; by default all. The first policy that names a caller holds.
    """

    digits: int | None = None
    top: int | None = None
    labels: bool = False
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, least, most in (("digits", 0, _MOST_DIGITS), ("top", 1, 1_000_000)):
            given = getattr(self, name)
            if given is not None:
                expect(given, int, f"The {name} of outputs", fix="write a whole number.")
                if not least <= given <= most:
                    raise Invalid(f"The {name} of outputs are {given}.", fix=f"write {least} to {most}.")
        expect(self.labels, bool, "The labels of outputs", fix="write labels=True.")
        if self.labels and (self.digits is not None or self.top is not None):
            raise Invalid("Outputs are labels alone, and scores too.", fix="write labels=True without digits and top.")
        msgspec.structs.force_setattr(self, "only", check_callers(self.only, "A policy on outputs"))

    @property
    def whole(self) -> bool:
        """Whether callers get all."""
        return self.digits is None and self.top is None and not self.labels


LABELS = Outputs(labels=True)
