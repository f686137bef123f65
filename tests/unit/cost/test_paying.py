"""Payers of work: one order of who pays, and what is kept with use."""

from __future__ import annotations

import threading
from itertools import product
from typing import Any

import pytest

import mainspring as ms
from mainspring.core.errors import Invalid
from mainspring.core.time import ManualClock
from mainspring.cost.adapters.memory import MemoryUsage
from mainspring.cost.metering import Metering, name_work
from mainspring.cost.paying import DECLARED, NAMED, NOBODY, PROFILE, STARTER, Payers, paid_by, payers, settled
from mainspring.cost.usage import BATCH, JOB, PIPELINE, RUN, VIEW, Subject


@pytest.mark.parametrize(("named", "declared", "around", "starter", "profile"), list(product((False, True), repeat=5)))
def test_the_first_of_five_pays(*, named: bool, declared: bool, around: bool, starter: bool, profile: bool) -> None:
    outer = Payers(("asked",), NAMED) if named else Payers(("outer",), STARTER) if around else NOBODY
    found = settled(
        outer, declared=("own",) if declared else (), starter=("b", "a") if starter else (),
        profile="rest" if profile else "",
    )  # fmt: skip
    order = [
        (named, Payers(("asked",), NAMED)), (declared, Payers(("own",), DECLARED)),
        (around, Payers(("outer",), STARTER)), (starter, Payers(("a", "b"), STARTER)),
        (profile, Payers(("rest",), PROFILE)), (True, NOBODY),
    ]  # fmt: skip
    assert found == next(who for there, who in order if there)


def test_use_is_charged_to_those_who_paid_when_the_work_was_opened() -> None:
    store = MemoryUsage()
    metering = Metering(lambda: store, ManualClock(10**15), "here", lambda: True)
    risk, web = Payers(("risk",), NAMED), Payers(("ops", "web"), STARTER)
    with paid_by(risk), metering.of(None) as outer:
        with paid_by(web), metering.of(Subject(VIEW, "v")) as inner:
            inner.charge({"rows": 3})
        with paid_by(web):
            name_work(Subject(RUN, "r"))  # named later: who pays was settled when it was opened
            outer.charge({"rows": 5})

        def apart() -> None:  # another thread has the payers of its own context: none
            with metering.of(Subject(JOB, "j")) as work:
                work.charge({"rows": 7})

        thread = threading.Thread(target=apart)
        thread.start()
        thread.join()
    with paid_by(risk), metering.of(Subject(RUN, "s", teams=("web",))) as work:
        work.charge({"rows": 9})  # one that has teams keeps them
    metering.close()
    found = {
        each.subject.id: (each.subject.teams, each.amount) for each in store.read(0, 10**18) if each.measure == "rows"
    }
    assert found == {"v": (("ops", "web"), 3), "r": (("risk",), 5), "j": ((), 7), "s": (("web",), 9)}
    assert payers() == NOBODY


def test_a_team_pays_for_what_it_declares() -> None:
    team = ms.Team("risk", models=["late"], pipelines=["nightly"], views=["Traffic"], jobs=["rates"])
    paid = {
        (RUN, "late"),
        (BATCH, "late"),
        ("endpoint", "late"),
        (PIPELINE, "nightly"),
        (VIEW, "Traffic"),
        (JOB, "rates"),
    }
    kinds, names = (
        (RUN, BATCH, PIPELINE, VIEW, JOB, "endpoint", "table"),
        ("late", "nightly", "Traffic", "rates", "train"),
    )
    assert {each for each in product(kinds, names) if team.pays_for(*each)} == paid


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "a team"}, "cannot name a team"),
        ({"models": "late"}, "models"),
        ({"views": [7]}, "views"),
        ({"jobs": ["a", "b", "a"]}, "names 'a' twice in jobs"),
    ],
)
def test_a_team_that_is_wrong_is_refused_by_name(given: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        ms.Team(**{"name": "risk", **given})
