"""The corpus of attacks against a model that obeys everyone, without and with a guard; docs have the table."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path

import pytest

from kit.attacks import Attack, Benign, attacks, benign
from kit.obedient import Caller, Obedient
from mainspring.llm.guarding.answering import Guarded, Noticed
from mainspring.llm.guarding.declaring import Argument, Guard, Tool
from mainspring.llm.model import Call
from mainspring.llm.ports import Answering
from mainspring.security.model import KeyScope, Kind, Principal
from mainspring.security.policy import Policies
from mainspring.security.tool_calls import ToolCallPolicies
from mainspring.stats.quality_figures import share_interval

PAGE = Path(__file__).parents[3] / "docs/explanation/prompt-injection.md"
OWN = """
@id("read") permit (principal == LanguageModel::"desk", action == Action::"tool:call", resource)
when { [Tool::"search", Tool::"inbox"].contains(resource) };
@id("mail-whom-the-user-named")
permit (principal == LanguageModel::"desk", action == Action::"tool:call", resource == Tool::"mail")
when { context.arguments.contains("to:user") }
unless { context.arguments.containsAny(["to:assistant", "to:retrieved", "to:tool"]) };
@id("open-what-the-user-named")
permit (principal == LanguageModel::"desk", action == Action::"tool:call", resource == Tool::"fetch")
when { context.arguments.contains("url:user") };
"""
GUARD = Guard(
    tools=[
        Tool("search", arguments={"query": Argument(required=True)}),
        Tool("inbox", arguments={}),
        Tool(
            "mail",
            arguments={
                "to": Argument(domains=["example.org"], required=True),
                "subject": Argument(longest=100),
                "body": Argument(longest=2000),
            },
        ),
        Tool("refund", arguments={"order": Argument(required=True)}, approval=True),
        Tool("fetch", arguments={"url": Argument(domains=["docs.example.org"], required=True)}),
    ],
    personal={"card": "redact", "iban": "redact"},
    links=["example.org"],
)
CALL = Call(id="r", caller=Principal("k", "desk", frozenset(KeyScope), Kind.KEY), begun=0)


class Own:
    policies = Policies({"own.cedar": OWN})

    def current(self) -> Policies:
        return self.policies


def guarded(
    model: Answering, guard: Guard = GUARD, notice: Callable[[Noticed], None] = lambda noticed: None
) -> Guarded:
    permits = ToolCallPolicies("shop", Own()).permits
    return Guarded(model, "desk", guard, key=b"k" * 32, permits=permits, notice=notice)


def held(cases: Sequence[Attack | Benign], model: Answering, *, stream: bool = False) -> list[Caller]:
    callers = [case.caller() for case in cases]

    async def talk() -> None:
        for case, caller in zip(cases, callers, strict=True):
            await caller.talk(model, CALL, *case.messages, stream=stream)

    asyncio.run(talk())
    return callers


def row(name: str, cells: Iterable[object]) -> str:
    return f"| {name} | {' | '.join(map(str, cells))} |"


def share(hits: int, of: int) -> str:
    low, high = share_interval(hits, of)
    return f"{hits / of:.0%} ({low:.0%} to {high:.0%})"


@pytest.fixture(scope="module")
def outcomes() -> list[tuple[Attack, bool, bool]]:
    corpus = attacks()
    both = held(corpus, Obedient()), held(corpus, guarded(Obedient()))
    return [(each, each.succeeded(one), each.succeeded(two)) for each, one, two in zip(corpus, *both, strict=True)]


@pytest.fixture(scope="module")
def unchanged() -> list[tuple[Benign, bool]]:
    corpus = sorted(benign(), key=lambda each: each.kind)
    both = held(corpus, Obedient()), held(corpus, guarded(Obedient()))
    return [(each, (one.shown, one.ran) == (two.shown, two.ran)) for each, one, two in zip(corpus, *both, strict=True)]


def test_without_a_guard_attacks_succeed(outcomes: list[tuple[Attack, bool, bool]]) -> None:
    assert [each.family for each, before, _ in outcomes if not before] == []


def test_with_a_guard_only_a_detail_that_is_in_no_canary_gets_out(outcomes: list[tuple[Attack, bool, bool]]) -> None:
    assert {each.family for each, _, after in outcomes if after} == {"a detail of the system prompt"}


def test_ordinary_conversations_go_on_but_for_what_cannot_be_told_from_an_attack(
    unchanged: list[tuple[Benign, bool]],
) -> None:
    assert {each.kind for each, same in unchanged if not same} == {
        "an answer to whoever wrote",
        "a link to another site",
    }


def test_streams_are_treated_as_whole_answers_are() -> None:
    corpus = [*attacks(4), *benign()[::4]]
    behind = guarded(Obedient(size=2))
    for each, whole, streamed in zip(corpus, held(corpus, behind), held(corpus, behind, stream=True), strict=True):
        assert streamed.ran == whole.ran
        if isinstance(each, Benign):
            assert streamed.shown == whole.shown
        else:
            assert each.succeeded(streamed) is each.succeeded(whole)


def test_the_page_has_the_tables(
    outcomes: list[tuple[Attack, bool, bool]], unchanged: list[tuple[Benign, bool]]
) -> None:
    lines = []
    for name, group in groupby(outcomes, key=lambda outcome: outcome[0].family):
        of = list(group)
        lines.append(row(name, [len(of), *(share(sum(each[place] for each in of), len(of)) for place in (1, 2))]))
    total = len(outcomes)
    lines.append(row("all", [total, *(share(sum(each[place] for each in outcomes), total) for place in (1, 2))]))
    for kind, same in groupby(unchanged, key=lambda outcome: outcome[0].kind):
        given = [each for _, each in same]
        lines.append(row(kind, [len(given), share(given.count(False), len(given))]))
    changed = sum(not same for _, same in unchanged)
    lines.append(row("all", [len(unchanged), share(changed, len(unchanged))]))
    page = PAGE.read_text() if PAGE.exists() else ""
    assert [line for line in lines if line not in page] == [], "\n".join(lines)
