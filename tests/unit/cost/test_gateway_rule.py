"""Division of a gateway's processor time: what is charged and what is left are the process's time."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mainspring.cost.usage import Subject
from mainspring.operations.cost.gateways import divided, grown
from mainspring.security.model import Principal
from mainspring.serving.plane.uses import Had, LaneCounts, LaneUses, ProcessCounts

_COUNT, _TIME = st.integers(0, 10**6), st.integers(0, 10**8)
_HAD = st.builds(Had, requests=_COUNT, rows=_COUNT, sent=_COUNT, micros=_COUNT)
_CALLERS = st.dictionaries(st.sampled_from("abc"), _HAD)
_USES = st.builds(LaneUses, loop_us=_TIME.map(float), thread_us=_TIME.map(float), callers=_CALLERS)
_LANE = st.builds(
    LaneCounts, endpoint=st.sampled_from(["e", "f", ""]), version=st.sampled_from("12"), model=st.just("m"), uses=_USES
)
_LANES = st.lists(_LANE, max_size=5, unique_by=lambda each: (each.endpoint, each.version))


@given(_LANES, _TIME, _TIME, st.sampled_from([1.0, 2.0, 8.0]))
def test_no_more_is_charged_than_was_used_and_every_count_is_kept(
    lanes: list[LaneCounts], loop_us: int, other_us: int, cores: float
) -> None:
    found = divided(lanes, loop_us=loop_us, other_us=other_us, cores=cores)
    charged = sum(of.get("cpu", 0) for of in found.values())
    assert 0 <= charged <= loop_us + other_us
    requests = sum(had.requests for each in lanes for had in each.uses.callers.values())
    direct = sum(round(each.uses.loop_us) for each in lanes)
    if requests and 1_000 * requests + direct >= loop_us:
        assert charged >= loop_us
    for measure, name in (("requests", "requests"), ("rows", "rows"), ("out", "sent"), ("charged", "micros")):
        counted = sum(getattr(had, name) for each in lanes for had in each.uses.callers.values())
        assert sum(of.get(measure, 0) for of in found.values()) == counted


def test_the_rule_by_numbers() -> None:
    """12 ms of the loop: 4 + 2 for models, 6 for 6 requests; 30 ms of threads, of which 20 were models' on 2 cores."""
    one = LaneCounts("e", "1", "m", LaneUses(4_000, 5_000, 0, {
        "ann": Had(requests=2, rows=30), "bob": Had(requests=2, rows=10),
    }))  # fmt: skip
    two = LaneCounts("f", "3", "n", LaneUses(2_000, 5_000, 0, {"bob": Had(requests=2, rows=1)}))
    found = divided([one, two], loop_us=12_000, other_us=30_000, cores=2.0)
    cpu = {(subject.id, subject.key): of["cpu"] for subject, of in found.items()}
    # Of e: 4 + 10 ms by rows, 3 to 1, and 1 ms a request.
    assert cpu == {("e", "ann"): 12_500, ("e", "bob"): 5_500, ("f", "bob"): 14_000}


def test_those_pay_for_a_callers_requests_whose_groups_it_is_in_now() -> None:
    uses = LaneUses(callers={})
    before = Principal("key-1", "ann", frozenset(), groups=frozenset({"web", "risk"}))
    for caller, paying in ((before, ("risk", "web")), (replace(before, groups=frozenset({"lab"})), ("lab",))):
        uses.answered(caller, 1, 1, 1)
        uses.refused(None)
        assert uses.callers["key-1"].teams == paying
    assert uses.callers == {"key-1": Had(2, 2, 2, 2, teams=("lab",)), "": Had(requests=2)}


def test_counts_grow_from_those_of_the_same_process() -> None:
    def counts(rows: int, sent: int = 0) -> ProcessCounts:
        had = {"ann": Had(requests=rows, rows=rows, sent=sent, teams=("risk",)), "bob": Had(requests=7)}
        return ProcessCounts(1, 1, [LaneCounts("e", "1", "m", LaneUses(10.0 * rows, 0.0, 0, had))])

    [lane] = grown(counts(2), counts(5, sent=9))
    assert lane.uses.callers == {"ann": Had(requests=3, rows=3, sent=9, teams=("risk",))}
    assert lane.uses.loop_us == 30.0
    assert grown(counts(5), counts(5)) == []
    [first] = grown(None, counts(5))
    assert first.uses.callers["bob"].requests == 7
    assert Subject("endpoint", "e", "1", "m", "ann", ("risk",), inside=True) in divided(
        [first], loop_us=0, other_us=0, cores=1.0
    )
