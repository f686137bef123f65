"""Declaration of budgets, `ms.Budget`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mainspring.core.definition_registry import declare, expect, expect_each
from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.core.money import Money, parse_money

QUEUE, STOP_SEARCHES, SHED, SCALE_DOWN = "queue", "stop-searches", "shed", "scale-down"
ACTS = (QUEUE, STOP_SEARCHES, SHED, SCALE_DOWN)
TEAM, ENDPOINT, MODEL, PROJECT = SCOPES = ("team", "endpoint", "model", "project")
_OF_SCOPE = {TEAM: ACTS, ENDPOINT: (SHED, SCALE_DOWN), MODEL: ACTS, PROJECT: ACTS}


class Budget(msgspec.Struct, frozen=True):
    """Money that may be spent in a month of the calendar, UTC.

    Args:
        name: An id, unique in the project.
        team, endpoint, model, project: Whose spending counts, exactly one: of a team, which are its group's callers and
            the work that it pays for, an endpoint, a model with its trainings, batches and endpoints, or all.
        month: The amount, such as "500 EUR".
        warn: Share of the amount from which an incident says so. One says so too once the month's end is forecast to
            be above the amount, even at the low end of the interval.
        act: Actions once the amount is spent, until the month's end: "queue", batches, trainings and
            optimisations wait; "stop-searches", searches of hyperparameters end, to be resumed; "shed", a share of
            requests is refused, those of the lowest priority first (of a team's budget: of its callers' requests, to
            any endpoint); "scale-down", executors are as few as the endpoint allows (of a team's budget: those of
            endpoints of its models).
        share: Share of requests that "shed" refuses.

    Raises:
        Invalid: Not exactly one scope is named, the amount is none, or an action does not fit the scope.
    """

    name: str
    month: str = msgspec.field(default="")
    team: str = ""
    endpoint: str = ""
    model: str = ""
    project: bool = False
    warn: float = 0.8
    act: tuple[str, ...] = ()
    share: float = 0.2

    def __post_init__(self) -> None:
        check_id(self.name, "budget")
        owner = f"The budget {self.name!r}"
        for scope in (TEAM, ENDPOINT, MODEL):
            expect(getattr(self, scope), str, f"{owner}'s {scope}", fix=f'write {scope}="NAME".')
        expect(self.project, bool, f"{owner}'s project", fix="write project=True.")
        if sum(bool(getattr(self, scope)) for scope in SCOPES) != 1:
            raise Invalid(f"{owner} names {self.named}.", fix="name one of team=, endpoint=, model= and project=True.")
        expect(self.month, str, f"{owner}'s amount", fix='write month="500 EUR".')
        if not parse_money(self.month, f"{owner}: month").nanos:
            raise Invalid(f"{owner} is of {self.month}.", fix='write an amount above 0: month="500 EUR".')
        for name in ("warn", "share"):
            given = getattr(self, name)
            expect(given, (int, float), f"{owner}'s {name}", fix=f"write a share: {name}=0.8.")
            if not 0 < given <= 1:
                raise Invalid(f"{owner} has {name}={given!r}.", fix="write a share above 0 and at most 1.")
        expect_each(self.act, str, f"{owner}'s actions", fix='write act=["queue"].')
        msgspec.structs.force_setattr(self, "act", tuple(self.act))
        _check_acts(self.act, self.scope, owner)
        declare(self)

    @property
    def scope(self) -> str:
        """One of `SCOPES`."""
        return next(scope for scope in SCOPES if getattr(self, scope))

    @property
    def named(self) -> str:
        """The budget's scope, in words."""
        found = [f"the {scope} {getattr(self, scope)}" for scope in (TEAM, ENDPOINT, MODEL) if getattr(self, scope)]
        return " and ".join([*found, *(["the project"] if self.project else [])]) or "nobody"

    @property
    def amount(self) -> Money:
        return parse_money(self.month, self.name)


def _check_acts(acts: Sequence[str], scope: str, owner: str) -> None:
    for act in acts:
        if act not in ACTS:
            raise Invalid(f"{owner} has the action {act!r}.", fix=f"write some of {', '.join(ACTS)}.")
        if act not in _OF_SCOPE[scope]:
            some = ", ".join(_OF_SCOPE[scope])
            raise Invalid(f"{owner} is of {scope}, which {act!r} cannot be limited to.", fix=f"write some of {some}.")
