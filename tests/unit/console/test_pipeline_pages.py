"""The pages of pipelines: their graphs, the state of runs, the log of a step, and what the buttons do."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from kit.console.client import Client
from kit.console.flights import Project
from kit.console.pipelined import Pipelined, pipelined
from mainspring.console.app import create_app
from mainspring.console.pipelines.graph_picture import MOST, SIGNS, declared
from mainspring.jobs.model import Status
from mainspring.jobs.pipelines.graph import Graph, Node
from mainspring.operations.pipelines import control
from mainspring.operations.pipelines.names import step_log
from mainspring.security.keys import issue
from mainspring.security.model import Account, AccountGroup, Grant, KeyScope, Kind, Role
from unit.console.test_model_pages import row, shown
from unit.console.test_pages import text_of
from unit.console.test_rollout_pages import browser, post

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def flows(tmp_path_factory: pytest.TempPathFactory) -> Pipelined:
    return pipelined(tmp_path_factory.mktemp("flows"))


@pytest.fixture(scope="module")
def client(flows: Pipelined) -> Client:
    return Client(create_app(flows.project), flows.project.key())


def boxes(page: str) -> dict[str, str]:
    """Return step -> note, as the graph that is drawn from left to right says it."""
    [drawn] = re.findall(r'<svg class="across".*?</svg>', page, re.DOTALL)
    groups = [each for each in ET.fromstring(drawn) if (each.get("class") or "").startswith("node")]
    texts = [[text.text or "" for text in each.iter("text")] for each in groups]
    return {name.removeprefix("◇ "): note for name, note in texts}


class TestTheList:
    def test_each_has_its_schedule_and_its_newest_runs(self, client: Client, flows: Pipelined) -> None:
        page = shown(client, "/pipelines")
        nightly = row(page, "nightly")
        assert "Train on each day's <b>flights</b>. 5" not in page
        assert "6 every 1d, when orders lands 2 Sep 2013, 00:00 UTC in 40 min Asks for approval" in nightly
        assert re.findall(r"/runs/([0-9a-z]+)", page) == [flows.queued, flows.asking, flows.failed, flows.done]
        assert "Failed Done" in nightly
        assert "8 by hand" in row(page, "chain")

    def test_a_run_that_waits_for_another_is_queued(self, tmp_path: Path) -> None:
        own = pipelined(tmp_path)
        control.start(own.project, "nightly", by="ana")
        client = Client(create_app(own.project), own.project.key())
        assert "Queued" in row(shown(client, "/pipelines"), "nightly")
        behind = control.runs(own.project, "nightly", 1)[0].id
        assert "at most 1 at once" in text_of(shown(client, f"/pipelines/nightly/runs/{behind}"))

    def test_none_is_said_to_be_none(self) -> None:
        bare = Project()
        assert "No pipelines yet" in shown(Client(create_app(bare), bare.key()), "/pipelines")


class TestOnePipeline:
    def test_the_graph_is_drawn_with_its_conditions(self, client: Client) -> None:
        page = shown(client, "/pipelines/nightly")
        assert boxes(page) == {
            "load": "step",
            "fit": "for each of load['days']",
            "choose": "step",
            "release": "approval by 1; if choose['auc…",
            "publish": "if choose['auc'] > bar",
            "report": "if choose['auc'] > 0.9",
        }
        [drawn] = re.findall(r'<svg class="across".*?</svg>', page, re.DOTALL)
        titles = [each.text for each in ET.fromstring(drawn).iter("title")]
        for edge in ("fit needs load", "choose needs fit", "release needs choose", "publish needs release"):
            assert edge in titles

    def test_its_runs_are_pages(self, client: Client, flows: Pipelined) -> None:
        first = client.get("/api/pipelines/nightly?limit=2").json()
        assert [run["id"] for run in first["runs"]] == [flows.asking, flows.failed]
        second = client.get(f"/api/pipelines/nightly?limit=2&before={first['next']}").json()
        assert ([run["id"] for run in second["runs"]], second["next"]) == ([flows.done], None)
        assert first["graph"]["nodes"][0]["name"] == "load"
        assert first["pipeline"]["schedule"]["when"] == "every 1d"
        assert "from the newest" in shown(client, f"/pipelines/nightly?before={first['next']}")
        shown(client, "/pipelines/nightly?before=x", 400)

    def test_one_that_is_not_declared_any_more_has_its_runs(self, flows: Pipelined) -> None:
        bare = flows.project.having(definitions=Project().definitions, jobs=flows.project.jobs)
        page = shown(Client(create_app(bare), bare.key()), "/pipelines/nightly")
        assert "Not declared any more" in page
        assert flows.done in page
        assert len(boxes(page)) == 6

    @pytest.mark.parametrize(
        "graph", [Graph("one", (Node("a"),)), Graph("many", tuple(Node(f"n{n}") for n in range(MOST + 1)))]
    )
    def test_a_graph_of_many_steps_is_not_drawn(self, graph: Graph) -> None:
        assert (declared(graph) is None) == (graph.name == "many")


class TestOneRun:
    def test_each_step_has_a_sign_and_a_word(self, client: Client, flows: Pipelined) -> None:
        found = boxes(shown(client, f"/pipelines/nightly/runs/{flows.asking}"))
        plain = {name: note.replace("\u2009", " ") for name, note in found.items()}
        assert plain["load"].startswith("✓ done, ")
        assert plain["fit"].startswith("✓ 3 of 3 done, ")
        assert plain["choose"] == "✓ done, from the cache"
        assert plain["release"] == "◇ asks for approval"
        assert plain["publish"] == "· waiting"
        assert plain["report"] == "– skipped"
        failed = boxes(shown(client, f"/pipelines/nightly/runs/{flows.failed}"))
        assert failed["fit"].startswith("✗ 1 of 3 failed, ")
        assert len(set(SIGNS.values())) == len(Status)

    def test_the_table_has_attempts_cache_results_and_errors(self, client: Client, flows: Pipelined) -> None:
        page = shown(client, f"/pipelines/nightly/runs/{flows.failed}")
        assert "Failed 1 0 ms – (no cache) ValueError: day 1 is" in row(page, "fit[1]").replace("\u2009", " ")
        assert "<b>bad</b>" not in page
        failures = re.findall(r'<ul class="failures">(.*?)</ul>', page, re.DOTALL)
        assert [text_of(f"<main>{each}</main>").lstrip("> ").rstrip() for each in failures] == [
            "fit[1] ValueError: day 1 is <b>bad</b>"
        ]
        assert "The step fit that it needs has failed." in row(page, "choose")
        assert "The step choose that it needs was skipped." in row(page, "publish")
        asking = shown(client, f"/pipelines/nightly/runs/{flows.asking}")
        assert 'hit {"day": 2, "auc": 0.72}' in row(asking, "choose")
        assert "6 of 6" not in asking
        assert "Parameter days 3" in text_of(asking)

    def test_a_step_has_the_end_of_its_log(self, client: Client, flows: Pipelined) -> None:
        page = shown(client, f"/pipelines/nightly/runs/{flows.asking}/steps/load")
        assert "line 399 of &lt;b&gt;load&lt;/b&gt;" in page
        assert "line 99 of" not in page
        assert "line 100 of" in page
        assert "earlier characters are left out" in page
        found = client.get(f"/api/pipelines/nightly/runs/{flows.asking}/steps/load/log").json()
        assert found["log"].splitlines()[0] == "line 100 of <b>load</b>"
        assert found["cut"] == sum(len(f"line {number} of <b>load</b>\n") for number in range(100))
        log = step_log(flows.project.settings.state, flows.failed, "load")
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"\x1b[1;31mred\x1b[0m\r\n\x1b]0;title\x07 10%\r 20%\rdone\r\nlast\x1b[")
        coloured = shown(client, f"/pipelines/nightly/runs/{flows.failed}/steps/load")
        assert "<pre>red\ndone\nlast" in coloured
        item = shown(client, f"/pipelines/nightly/runs/{flows.failed}/steps/fit%5B1%5D")
        assert "day 1 is &lt;b&gt;bad&lt;/b&gt;" in item
        assert "Nothing was written here" in item

    @pytest.mark.parametrize(
        "path",
        ["nobody", "nightly/runs/nobody", "chain/runs/{asking}", "nightly/runs/{asking}/steps/..%2Fload"],
    )
    def test_nobodys_is_404(self, client: Client, flows: Pipelined, path: str) -> None:
        asked = path.format(asking=flows.asking)
        for prefix in ("", "/api"):
            assert client.page(f"{prefix}/pipelines/{asked}").status_code == 404

    def test_the_api_has_the_same(self, client: Client, flows: Pipelined) -> None:
        found = client.get(f"/api/pipelines/nightly/runs/{flows.done}").json()
        assert (found["run"]["status"], found["run"]["result"], found["run"]["by"]) == ("done", 2, "ana")
        steps = {each["name"]: each for each in found["steps"]}
        assert (steps["release"]["approved_by"], steps["load"]["result"]["days"]) == (["bob"], [0, 1, 2])
        assert [each["name"] for each in client.get("/api/pipelines").json()["pipelines"]] == ["chain", "nightly"]

    def test_the_steps_of_the_api_are_pages(self, client: Client, flows: Pipelined) -> None:
        path = f"/api/pipelines/nightly/runs/{flows.done}"
        whole = client.get(path).json()
        first = client.get(f"{path}?limit=4").json()
        second = client.get(f"{path}?limit=100&from={first['next']}").json()
        assert (whole["next"], first["next"], second["next"]) == (None, 4, None)
        assert first["steps"] + second["steps"] == whole["steps"]


class TestTheButtons:
    @pytest.fixture
    def own(self, tmp_path: Path) -> Pipelined:
        return pipelined(tmp_path)

    def test_a_run_is_started_approved_retried_and_cancelled(self, own: Pipelined) -> None:
        project = own.project
        person, csrf = browser(project, KeyScope.VIEW, KeyScope.MANAGE)
        sure = {"csrf": csrf, "confirm": "yes"}

        here = f"/pipelines/nightly/runs/{own.asking}"
        page = person.page(here).text
        assert re.findall(r'action="([^"]+/(?:approve|retry|cancel))"', page) == [f"{here}/approve", f"{here}/cancel"]
        assert post(person, f"{here}/approve", {"csrf": csrf, "step": "release"}).status_code == 400
        answer = post(person, f"{here}/approve", {**sure, "step": "release", "reason": "looks <b>good</b>"})
        assert (answer.status_code, answer.headers["location"]) == (303, here)
        [step] = [each for each in control.state(project, own.asking).steps if each.name == "release"]
        [approver] = step.approved_by
        assert approver.endswith(":nina")
        assert post(person, f"{here}/approve", {**sure, "step": "release"}).status_code == 409

        failed = f"/pipelines/nightly/runs/{own.failed}"
        assert f'action="{failed}/retry"' in person.page(failed).text
        assert post(person, f"{failed}/retry", {**sure, "step": "fit[1]"}).status_code == 303
        assert control.find_run(project, own.failed).status is Status.WAITING  # for its steps

        assert post(person, f"{here}/cancel", sure).status_code == 303
        assert control.find_run(project, own.asking).status is Status.CANCELLED
        assert post(person, f"{here}/cancel", sure).status_code == 409
        assert post(person, f"{here}/burn", sure).status_code == 404

        started = post(person, "/pipelines/chain/runs", sure)
        new = started.headers["location"].rpartition("/")[2]
        assert (started.status_code, control.find_run(project, new).handler) == (303, "pipeline:chain")
        found = [(event.action, event.actor.endswith(":nina")) for event in project.audit.read(5)]
        actions = ["run", "cancel", "retry", "approve"]
        assert [each for each in found if each[0].startswith("pipelines.")][:4] == [
            (f"pipelines.{action}", True) for action in actions
        ]

    def test_a_person_cannot_approve_their_own_run_with_another_key(self, tmp_path: Path) -> None:
        own = pipelined(tmp_path, approvals=1)
        project = own.project

        def key(made_by: str, owner: str = "") -> Client:
            token = issue(
                project.key_store, name="k", scopes=(KeyScope.VIEW, KeyScope.MANAGE), lifetime_us=10**12,
                clock=project.authenticator.clock, pepper=project.pepper, created_by=made_by, owner=owner,
            )  # fmt: skip
            return Client(create_app(project), token)

        path, asked = f"/api/pipelines/nightly/runs/{own.asking}/approve", {"step": "release"}
        assert key("ana")("POST", path, json=asked).status_code == 403  # ana started it
        assert key("")("POST", path, json=asked).status_code == 403
        project.accounts.add(Account("carla", Kind.USER, "Carla"))
        project.accounts.grant(Grant(Kind.USER, "carla", Role.ENGINEER))
        mine = key("bob", "carla")("POST", "/api/pipelines/nightly/runs", json={}).json()["id"]
        assert control.find_run(project, mine).argument["by"].startswith("key:")
        assert (
            key("carla", "carla")("POST", f"/api/pipelines/nightly/runs/{mine}/approve", json=asked).status_code == 403
        )
        answer = key("bob")("POST", path, json=asked)
        assert answer.status_code == 200
        assert {each["name"]: each["approved_by"] for each in answer.json()["steps"]}["release"][0].endswith(":k")

    def test_a_caller_charges_own_groups_alone(self, own: Pipelined) -> None:
        project = own.project
        for name in ("risk", "web"):
            project.accounts.add_group(AccountGroup(name))
        project.accounts.add(Account("dora", Kind.USER, "Dora"))
        project.accounts.grant(Grant(Kind.USER, "dora", Role.ENGINEER))
        project.accounts.add_member("risk", "dora")

        def client(owner: str, *scopes: KeyScope) -> Client:
            token = issue(
                project.key_store, name="k", scopes=scopes, lifetime_us=10**12, clock=project.authenticator.clock,
                pepper=project.pepper, owner=owner,
            )  # fmt: skip
            return Client(create_app(project), token)

        path, dora = "/api/pipelines/chain/runs", client("dora", KeyScope.VIEW, KeyScope.MANAGE)
        before = len(control.runs(project, "chain", 99))
        for team in ("web", "wep", "group/risk", "risk/", "RISK", " ", "risk\0", '"', "Project::x", "x" * 500):
            answer = dora("POST", path, json={"team": team})
            assert answer.status_code == 403, team
            assert "There is no team" not in answer.text, "who may not charge a team does not learn whether it is there"
        for wrong in (["risk"], 7, None):
            assert dora("POST", path, json={"team": wrong}).status_code == 400
        # Neither a parameter of the pipeline nor another field of the request names a team.
        assert dora("POST", path, json={"parameters": {"team": "web"}}).status_code == 400
        assert dora("POST", path, json={"teams": ["web"]}).status_code == 400
        assert client("dora", KeyScope.VIEW)("POST", path, json={"team": "risk"}).status_code == 403
        assert len(control.runs(project, "chain", 99)) == before
        made = dora("POST", path, json={"team": "risk"})
        assert made.status_code == 201
        assert control.find_run(project, made.json()["id"]).team == "risk"
        assert dora.get(f"/api/jobs/{made.json()['id']}").json()["job"]["team"] == "risk"
        head = client("", KeyScope.VIEW, KeyScope.MANAGE)
        assert head("POST", path, json={"team": "wep"}).status_code == 400
        assert head("POST", path, json={"team": "web"}).status_code == 201

    def test_a_run_over_the_api_has_its_parameters(self, own: Pipelined) -> None:
        client = Client(create_app(own.project), own.project.key())
        path = "/api/pipelines/nightly/runs"
        made = client("POST", path, json={"parameters": {"days": 9}, "key": "once"})
        again = client("POST", path, json={"parameters": {"days": 9}, "key": "once"})
        assert (made.status_code, made.json()["id"]) == (201, again.json()["id"])
        assert client.get(f"{path}/{made.json()['id']}").json()["run"]["parameters"]["days"] == 9
        assert client("POST", path, json={"parameters": {"dayz": 9}}).status_code == 400
        assert client("POST", path, json={"days": 9}).status_code == 400
        for key in ("", "x" * 257, "a\0b", "\ud800"):
            assert client("POST", path, content=json.dumps({"key": key})).status_code == 400, key
        assert client("POST", path, json={"key": "x" * 256}).status_code == 201

    def test_a_viewer_has_no_buttons_and_no_right(self, flows: Pipelined) -> None:
        person, csrf = browser(flows.project, KeyScope.VIEW)
        path = f"/pipelines/nightly/runs/{flows.asking}"
        assert 'class="action"' not in person.page(path).text
        assert post(person, f"{path}/cancel", {"csrf": csrf, "confirm": "yes"}).status_code == 403
        assert control.find_run(flows.project, flows.asking).status is Status.WAITING
