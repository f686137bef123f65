"""The pages of rollouts: what they show and explain, and what their buttons do on whose behalf."""

import html
import os
import re
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

import mainspring as ms
from kit.console.client import HOST, Client
from kit.console.crawl import reprs, visible
from kit.console.flights import Project
from kit.console.rolled import CANDIDATE, ENDPOINT, PLAN, REASON, Rolled, rolled
from mainspring.console.app import create_app
from mainspring.console.rollouts.listing import DRAWN, LOOKS
from mainspring.console.rollouts.pictures import evidence, sequence
from mainspring.console.rollouts.words import sentence, why
from mainspring.delivery.conformance import rollout
from mainspring.delivery.rollout.deciding import CONTROLLER
from mainspring.delivery.rollout.model import Evidence, Look, Reading, Status
from mainspring.delivery.rollout.plan import Plan
from mainspring.delivery.rollout.plan_in_words import planned, waits_for
from mainspring.operations.rollout.gateways import unready
from mainspring.operations.rollout.reports import report
from mainspring.security.model import KeyScope
from mainspring.serving.plane.metrics import Metrics
from unit.console.test_model_pages import row, shown
from unit.console.test_pages import text_of


@pytest.fixture(scope="module")
def rollouts() -> Rolled:
    return rolled()


@pytest.fixture(scope="module")
def client(rollouts: Rolled) -> Client:
    return Client(create_app(rollouts.project), rollouts.project.key())


class TestTheList:
    def test_the_live_one_is_first_and_each_says_how_it_is(self, client: Client, rollouts: Rolled) -> None:
        page = shown(client, "/rollouts")
        found = re.findall(r'href="/rollouts/([0-9a-z]+)"', page)
        assert found == [rollouts.live, rollouts.stopped, rollouts.rolled_back]
        said = text_of(page)
        assert "Running version 3 version 2 25%" in said
        assert "Rolled back version 3 version 2" in said
        assert "the release waits for <i>Monday</i>" in said
        assert "<i>" not in page
        assert REASON not in page

    def test_none_is_said_to_be_none(self) -> None:
        bare = Project()
        assert "No rollouts yet" in shown(Client(create_app(bare), bare.key()), "/rollouts")

    def test_the_pages_of_the_list_have_each_once(self, client: Client, rollouts: Rolled) -> None:
        first = client.get("/api/rollouts?limit=1").json()
        assert [each["id"] for each in (*first["live"], *first["ended"])] == [rollouts.live, rollouts.stopped]
        second = client.get(f"/api/rollouts?limit=1&before={first['next']}").json()
        assert ([each["id"] for each in second["ended"]], second["next"]) == ([rollouts.rolled_back], None)
        assert client.get("/api/rollouts?endpoint=other").json()["ended"] == []
        assert "continued" in text_of(shown(client, f"/rollouts?before={first['next']}"))

    @pytest.mark.parametrize("asked", ["before=x", "before=1", "before=-1-a", "before=1-../x"])
    def test_a_place_that_is_none_is_refused(self, client: Client, asked: str) -> None:
        shown(client, f"/rollouts?{asked}", 400)


@contextmanager
def gateway(place: Path, slot: int, metrics: Metrics) -> Iterator[None]:
    """Answer in a gateway's slot, as its process does."""

    class Answers(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"ready\n" + metrics.text())

    folder = os.open(place, os.O_PATH)  # the path of a socket must be short
    with socketserver.ThreadingUnixStreamServer(f"/proc/self/fd/{folder}/gateway-{slot}.sock", Answers) as server:
        os.close(folder)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def test_gateway_processes_are_named_with_what_they_cannot_load(rollouts: Rolled, tmp_path: Path) -> None:
    settings = replace(rollouts.project.settings, state=tmp_path, gateway_workers=2)
    here = rollouts.project.having(settings=settings)
    (tmp_path / "slots").mkdir()
    idle: dict[str, Any] = {"ready": lambda: True, "waiting": dict, "revisions": lambda: {ENDPOINT: 7, "other": 9}}
    well = Metrics(served=lambda: {ENDPOINT: ("2", "3")}, refused=dict, **idle)
    ill = Metrics(
        served=lambda: {ENDPOINT: ("2",), "other": ("1",)},
        refused=lambda: {ENDPOINT: "Version 3 is not served: <torch> is too old\nfor it", "other": "no disk"},
        **idle,
    )
    with gateway(tmp_path / "slots", 0, well), gateway(tmp_path / "slots", 1, ill):
        said = text_of(shown(Client(create_app(here), here.key()), f"/rollouts/{rollouts.live}"))
        [state] = [each for each in here.rollouts.live() if each.id == rollouts.live]
        found = report(here, state)
        assert unready(here, state) == ("gateway-1 cannot load it: " + found.gateways[1].trouble, "")
        late = Metrics(served=lambda: {ENDPOINT: ("2",)}, refused=dict, **idle)
        with gateway(tmp_path / "slots", 2, late):
            assert unready(here, state)[1] == "grpc"
    assert [(each.process, each.revision, each.versions) for each in found.gateways] == [
        ("gateway", 7, ("2", "3")),
        ("gateway-1", 7, ("2",)),
    ]
    assert found.gateways[1].trouble == "Version 3 is not served: <torch> is too old\nfor it"
    assert "gateway 2, 3 7" in said
    assert "gateway-1 2 7 Version 3 is not served: <torch> is too old for it" in said


class TestOne:
    def test_a_breach_is_explained_with_its_numbers(self, client: Client, rollouts: Rolled) -> None:
        said = text_of(shown(client, f"/rollouts/{rollouts.rolled_back}"))
        last = rollouts.project.rollouts.looks(rollouts.rolled_back)[-1]
        worse = last.readings[0]
        assert (
            f"Failed requests are {worse.estimate:.3g} times as frequent with version 3 as with version 2 (between "
            f"{worse.low:.3g} and {worse.high:.3g} times; up to 1.5 is tolerated). Counted: {worse.candidate} of "
            f"version 3, {worse.control} of version 2."
        ) in said
        assert "If it were no worse than tolerated, such numbers would come up in at most 1 of" in said
        assert "1 of 80 is the limit for a rollback" in said
        assert "ana (k1) started it: version 3 beside champion 2." in said
        assert "None: the rollout has ended." in said
        assert "Worse than tolerated" in said

    def test_the_plan_is_told_in_words(self, client: Client, rollouts: Rolled) -> None:
        said = text_of(shown(client, f"/rollouts/{rollouts.live}"))
        assert "the candidate gets a growing share of the requests: 5%, then 25%, then 50%." in said
        assert "A step lasts at least 30m and 100 requests of the candidate." in said
        assert "failed requests, up to 1.5 times the champion's share (a share up to 0.5% is harmless)" in said
        assert "rolled back by mistake in at most 5% of rollouts" in said

    def test_every_guard_is_drawn_with_its_band_its_limit_and_each_look(self, client: Client, rollouts: Rolled) -> None:
        page = shown(client, f"/rollouts/{rollouts.live}")
        figures = re.findall(r'<figure class="card chart">(.*?)</figure>', page, re.DOTALL)
        assert len(figures) == len(PLAN.guards) + 1  # the sample ratio
        looks = [look for look in rollouts.project.rollouts.looks(rollouts.live) if look.readings]
        for figure, name in zip(figures[:3], ("Errors", "Latency", "Score"), strict=False):
            assert f"<h3>{name}" in figure
            assert figure.count('<polygon class="band"') == 1
            sequence, evidence = figure.split("(e-value); the dashed line")
            assert sequence.count('class="level limit"') == evidence.count('class="level limit"') == 1
            assert "no difference, 1×" in sequence
            compared = [each for look in looks for each in look.readings if each.guard == name.lower()]
            assert sequence.count('class="dot look"') == sum(each.estimate is not None for each in compared)
            assert evidence.count('class="dot look"') == len(compared)

    def test_it_says_for_what_it_waits(self, client: Client, rollouts: Rolled) -> None:
        assert "Waits for 6m more" in text_of(shown(client, f"/rollouts/{rollouts.live}"))
        state = rollouts.project.rollouts.get([rollouts.live])[0]
        assert state is not None
        few = msgspec.structs.replace(state, held_us=10**12, step_from=state.evidence.candidate - 90)
        assert waits_for(few, []) == (f"10 more requests of version {CANDIDATE}",)
        last = msgspec.structs.replace(state, held_us=10**12, step=2)
        assert waits_for(last, ["errors", "score"]) == ("evidence on errors, score",)

    def test_before_the_first_look_it_says_so(self) -> None:
        made = rolled()
        state = made.project.rollouts.get([made.stopped])[0]
        assert state is not None
        bandit = msgspec.structs.replace(PLAN, kind="bandit")
        new = msgspec.structs.replace(
            state, id="new", endpoint="other", plan=bandit, status=Status.PENDING, began_at=None, ended_at=None,
            evidence=Evidence(), revision=0,
        )  # fmt: skip
        begun = made.project.rollouts.looks(made.stopped)[0]
        made.project.rollouts.create(new, msgspec.structs.replace(begun, rollout="new"))
        page = text_of(shown(Client(create_app(made.project), made.project.key()), "/rollouts/new"))
        for said in (
            "Bandit rollout",
            "Waits for the first look of a worker",
            "The share follows",
            "Nothing has been observed yet",
        ):
            assert said in page, said

    def test_the_shares_are_those_of_the_looks(self, client: Client, rollouts: Rolled) -> None:
        page = shown(client, f"/rollouts/{rollouts.live}")
        [path] = re.findall(r'<path class="candidate" d="([^"]*)"', page)
        heights = list(dict.fromkeys(re.findall(r"V([\d.]+)", path)))
        assert heights == ["200.0", "190.0", "150.0", "200"]  # nothing, 5%, 25%, and down to the axis

    def test_every_look_is_in_the_table(self, client: Client, rollouts: Rolled) -> None:
        first = shown(client, f"/rollouts/{rollouts.live}")
        second = shown(client, f"/rollouts/{rollouts.live}?from={LOOKS}")
        numbers = [int(each) for page in (first, second) for each in re.findall(r'<th scope="row">(\d+)</th>', page)]
        count = len(rollouts.project.rollouts.looks(rollouts.live))
        assert count > LOOKS
        assert numbers == list(range(count, 0, -1))
        newest = rollouts.project.rollouts.looks(rollouts.live)[-1]
        assert f"{newest.candidate:,} {newest.control:,} {newest.readings[0].estimate:.3g}×" in row(first, f"{count} ")

    def test_of_very_many_looks_some_are_drawn_with_the_newest_and_each_decision(self) -> None:
        made = rolled()
        store = made.project.rollouts
        [state] = store.live()
        last = store.looks(made.live)[-1]
        more = [msgspec.structs.replace(last, number=last.number + n, at=last.at + n) for n in range(1, 1_001)]
        store.replace(msgspec.structs.replace(state, looks=state.looks + len(more), audited=state.looks + 1_000), more)
        page = shown(Client(create_app(made.project), made.project.key()), f"/rollouts/{made.live}")
        figures = re.findall(r'<figure class="card chart">(.*?)</figure>', page, re.DOTALL)
        counts = [each.count('class="dot look"') for each in figures]
        assert max(counts) <= 2 * (DRAWN + 3)
        assert "of 1,056 looks every 6th is drawn, and each decision" in text_of(page)
        assert [f"{more[-1].candidate:,}" in each for each in figures] == [False, True, False, True]
        assert page.count('<line class="mark"') == 3

    def test_the_endpoint_links_it(self, client: Client, rollouts: Rolled) -> None:
        page = shown(client, f"/?endpoint={ENDPOINT}")
        assert f'href="/rollouts/{rollouts.live}"' in page
        assert "running, 25% of the requests" in text_of(page)

    def test_no_value_stands_there_as_python_writes_it(self, client: Client, rollouts: Rolled) -> None:
        paths = [
            "/rollouts",
            *(f"/rollouts/{each}" for each in (rollouts.live, rollouts.stopped, rollouts.rolled_back)),
        ]
        assert reprs({path: visible(shown(client, path)) for path in paths}) == {}

    @pytest.mark.parametrize("path", ["/rollouts/nobody", "/api/rollouts/nobody", "/api/rollouts/nobody/looks"])
    def test_nobodys_is_404(self, client: Client, path: str) -> None:
        answer = client.page(path)
        assert answer.status_code == 404
        assert "mainspring rollout list" in answer.text

    def test_the_api_has_the_same(self, client: Client, rollouts: Rolled) -> None:
        found = client.get(f"/api/rollouts/{rollouts.rolled_back}").json()
        assert (found["rollout"]["status"], found["breached_from_e_value"]) == ("rolled back", 80.0)
        assert "salt" not in found["rollout"]
        assert [each["look"]["decision"] for each in found["decisions"]] == ["roll back", "begin", "start"]
        assert found["metrics"][0]["state"] == "Worse than tolerated"
        assert found["decisions"][0]["why"][0] == found["metrics"][0]["sentence"]
        looks = client.get(f"/api/rollouts/{rollouts.rolled_back}/looks?after=2&limit=3").json()["looks"]
        assert [each["number"] for each in looks] == [3, 4, 5]


STATE = rollout()[0]
RATIO = Reading(guard="errors", estimate=2.0, low=0.0, high=None, limit=1.5, candidate=4, control=2, log_e=1.0)
MEAN = Reading(guard="quality brier", unit="difference", estimate=-0.01, low=-0.03, high=0.01, limit=0.02, log_e=-2.0)


def looked_at(decision: str, **more: Any) -> Look:
    told = {"why": "it was so", "actor": CONTROLLER, "status": Status.RUNNING, "step": 0, "share": 0.25}
    return Look(rollout="r1", number=2, at=1, decision=decision, candidate=1_200, **told | more)


class TestTheWords:
    @pytest.mark.parametrize(
        ("look", "said"),
        [
            (looked_at("promote", readings=(MEAN,)), "Every guard is shown to hold, after 1,200 requests. It becomes"),
            (looked_at("wait", readings=(MEAN,)), "A person decides about the promotion."),
            (
                looked_at("end", goals=(msgspec.structs.replace(MEAN, futile=True),)),
                "An improvement that matters is",
            ),
            (looked_at("end", why="no decision within 7d"), "No decision within 7d."),
            (looked_at("fail", why="no gateway serves it"), "No gateway serves it."),
            (looked_at("done", actor="nina (k1)", why="enough seen"), "nina (k1) promoted the candidate: enough seen."),
        ],
    )
    def test_each_decision_has_its_reason(self, look: Look, said: str) -> None:
        assert said in " ".join(why(look, STATE))

    def test_a_bound_that_is_not_known_is_said_to_be_unknown(self) -> None:
        assert "(between 0 and unknown times; up to 1.5 is tolerated)" in sentence(RATIO, STATE)

    def test_a_mean_is_a_difference_in_its_own_unit(self) -> None:
        assert "The mean brier of version 2 differs by -0.01 from version 1's (between -0.03 and 0.01; the" in sentence(
            MEAN, STATE
        )

    def test_a_shadow_is_told_in_pairs(self) -> None:
        guards = [ms.guards.errors(), ms.guards.latency(), ms.guards.score(tolerance=0.5)]
        told = " ".join(planned(Plan(endpoint="late", kind="shadow", steps=(0.0,), guards=tuple(guards))))
        assert "and 100 pairs of answers" in told
        assert "up to 0.25 standard deviations of the champion's scores" in told
        assert "latency" not in told
        note = "mean absolute difference of the arms' scores of the same inputs"
        pairs = msgspec.structs.replace(MEAN, guard="score", note=note, estimate=0.01, candidate=70)
        assert sentence(pairs, STATE).startswith(f"M{note[1:]}: 0.01 (")
        assert sentence(pairs, STATE).endswith("in 70 pairs.")


class TestTheDrawings:
    @pytest.mark.parametrize("reading", [RATIO, MEAN, msgspec.structs.replace(RATIO, estimate=0.0, high=1e300)])
    @pytest.mark.parametrize("instants", [[5], [5, 9, 7]])  # one look, and a clock that went back
    def test_everything_is_inside_whatever_the_numbers(self, reading: Reading, instants: list[int]) -> None:
        looks = [(at, reading) for at in instants]
        drawn = [sequence(looks, 6), evidence(looks, 6, 80.0)]
        for plot in drawn:
            assert plot is not None
            dots = re.findall(r'd="M([^ ]+) ([^"]+)h0"', str(plot.svg))
            band = [
                each.split(",") for points in re.findall(r'points="([^"]+)"', str(plot.svg)) for each in points.split()
            ]
            assert len(dots) == len(looks)
            assert all(-3 <= float(x) <= 603 and 0 <= float(y) <= 200 for x, y in (*dots, *band))

    def test_what_was_not_compared_is_not_drawn(self) -> None:
        assert sequence([(1, Reading(guard="errors", note="no label came"))], 2) is None


def browser(project: Project, *scopes: KeyScope) -> tuple[Client, str]:
    """Return a logged-in browser and its CSRF token."""
    made = Client(create_app(project))
    form = {"key": project.key(*scopes, name="nina"), "next": "/rollouts"}
    assert post(made, "/login", form).status_code == 303
    page = made.page("/rollouts").text
    return made, re.findall(r'name="csrf" value="([^"]+)"', page)[0]


def post(client: Client, path: str, fields: dict[str, Any]) -> Any:
    headers = {
        "origin": f"http://{HOST}",
        "accept": "text/html",
        "content-type": "application/x-www-form-urlencoded",
    }
    return client("POST", path, headers=headers, content=urlencode(fields))


class TestTheButtons:
    def test_a_live_rollout_is_stopped_by_its_form_and_the_person_is_recorded(self) -> None:
        made = rolled()
        person, csrf = browser(made.project, KeyScope.VIEW, KeyScope.MANAGE)
        page = person.page(f"/rollouts/{made.live}").text
        actions = re.findall(r'<form method="post" action="(/rollouts/[^"]+)"', page)
        assert [each.rpartition("/")[2] for each in actions] == ["stop", "rollback", "promote"]

        unsure = post(person, actions[0], {"csrf": csrf})
        assert (unsure.status_code, "not confirmed" in unsure.text) == (400, True)
        forged = post(person, actions[0], {"csrf": "x", "confirm": "yes"})
        assert forged.status_code == 403
        assert made.project.rollouts.live() != []

        answer = post(person, actions[0], {"csrf": csrf, "confirm": "yes", "reason": "the <b>wrong</b> week"})
        assert (answer.status_code, answer.headers["location"]) == (303, f"/rollouts/{made.live}")
        [state] = made.project.rollouts.get([made.live])
        assert state is not None
        assert (state.status, state.share) == (Status.STOPPED, 0.0)
        assert made.project.routes.current()[ENDPOINT].rollout == ""
        said = text_of(person.page(f"/rollouts/{made.live}").text)
        assert re.search(r"nina \(\w+\) stopped it: the <b>wrong</b> week\.", said)
        [event] = [
            each for each in made.project.audit.read() if each.action == "rollout.stop" and made.live in each.detail
        ]
        assert event.actor.startswith("nina (")
        assert "rollout.stop" in said  # in the page's audit log

        again = post(person, actions[1], {"csrf": csrf, "confirm": "yes"})
        assert (again.status_code, "has ended: stopped" in html.unescape(again.text)) == (409, True)

    def test_the_candidate_is_promoted_over_the_api(self) -> None:
        made = rolled()
        manager = Client(create_app(made.project), made.project.key(KeyScope.VIEW, KeyScope.MANAGE, name="olaf"))
        assert manager("POST", f"/api/rollouts/{made.live}/promote", json={"because": "x"}).status_code == 400
        assert manager("POST", f"/api/rollouts/{made.live}/burn").status_code == 404
        answer = manager("POST", f"/api/rollouts/{made.live}/promote", json={"reason": "enough seen"})
        assert (answer.status_code, answer.json()["rollout"]["status"]) == (200, "done")
        assert made.project.versions.get(ENDPOINT, "champion").version == CANDIDATE
        move = made.project.versions.moves(ENDPOINT, "champion")[0]
        assert (move.new, move.actor.startswith("olaf (")) == (CANDIDATE, True)
        assert manager("POST", f"/api/rollouts/{made.live}/rollback").status_code == 409

    def test_a_viewer_has_no_buttons_and_no_right(self, rollouts: Rolled) -> None:
        person, csrf = browser(rollouts.project, KeyScope.VIEW)
        page = person.page(f"/rollouts/{rollouts.live}").text
        assert "/stop" not in page
        assert "needs the scope manage" in page
        answer = post(person, f"/rollouts/{rollouts.live}/stop", {"csrf": csrf, "confirm": "yes"})
        assert answer.status_code == 403
        assert len(rollouts.project.rollouts.live()) == 1
