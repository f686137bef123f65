import asyncio
import json
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from kit import documents
from kit.language_gateway import language_model
from mainspring.cli.main import cli
from mainspring.core.errors import Conflict, Denied, NotFound, Unavailable
from mainspring.core.time import DAY
from mainspring.llm.adapters import held_calls as adapter
from mainspring.llm.guarding.declaring import Guard, Tool
from mainspring.llm.model import Call, ChatReply, ChatRequest, Choice, Message, Text, ToolCall
from mainspring.operations.held_calls import decide, described, held_calls
from mainspring.project import Project, open_project
from mainspring.project.guards import guarded
from mainspring.project.settings import load_settings
from mainspring.security.model import AuditFilter, Kind, Principal

MODEL = language_model("desk", guard=Guard(tools=[Tool("refund", approval=True)], calls=1000, repeats=1000))


class Refunding:
    """Asks for the same refund always."""

    def __init__(self) -> None:
        self.arguments = '{"order": 7, "by": "card"}'

    async def chat(self, request: ChatRequest, call: Call) -> ChatReply:
        made = ToolCall(id="c", name="refund", arguments=self.arguments)
        return ChatReply(
            id="a",
            model="m",
            choices=(Choice(message=Message(role="assistant", tool_calls=(made,)), finish="tool_calls"),),
        )

    stream = embed = chat


def opened(root: Path, settings: str = "") -> Project:
    (root / "mainspring.toml").write_text(f'name = "own"\n[profiles.local]\n{settings}')
    return open_project(load_settings(root, environment={}))


class Desk:
    """A language model behind a guard of a project."""

    def __init__(self, project: Project) -> None:
        self.upstream = Refunding()
        self._answering = guarded(project, lambda *_: self.upstream)(MODEL, {})

    def ask(self, caller: str = "k1") -> tuple[str, int]:
        """Return what the answer says, and how many calls it has."""
        call = Call(id="r", caller=Principal(caller, "ana", frozenset(), Kind.KEY), begun=0)
        request = ChatRequest(model="desk", messages=(Message(role="user", content=(Text("x"),)),))
        message = asyncio.run(self._answering.chat(request, call)).choices[0].message
        return message.text, len(message.tool_calls)


def test_a_call_waits_until_a_person_approves_it_and_gets_through_once(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as project:
        desk = Desk(project)
        told, made = desk.ask()
        [held] = held_calls(project)
        assert (told, made) == (f"The call of 'refund' waits for a person's approval: {held.id}.", 0)
        assert json.loads(held.arguments) == {"order": 7, "by": "card"}
        assert desk.ask() == (told, 0)
        assert len(held_calls(project)) == 1

        done = decide(project, held.id, approve=True)
        documents.check(["llm", "approve"], described(done))
        documents.check(["llm", "approvals"], [described(held), described(done)])
        assert held_calls(project) == []
        assert desk.ask("k2")[1] == 0  # another caller
        desk.upstream.arguments = '{"order": 8, "by": "card"}'
        assert desk.ask()[1] == 0  # another order
        desk.upstream.arguments = '{"by":"card","order":7}'
        assert desk.ask() == ("", 1)
        assert desk.ask()[1] == 0  # used
        assert [each.status for each in held_calls(project, all_=True)] == ["used", "waiting", "waiting", "waiting"]
        with pytest.raises(Conflict, match="does not wait any more"):
            decide(project, held.id, approve=True)
        with pytest.raises(NotFound):
            decide(project, "nothing", approve=True)
        [event] = project.audit.search(AuditFilter(action="llm.approve"))
        assert event.event.resource == f"call/{held.id}"
        assert "order" not in event.event.detail


def test_a_denied_call_stays_denied_for_a_day(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as project:
        desk = Desk(project)
        desk.ask()
        [held] = held_calls(project)
        documents.check(["llm", "deny"], described(decide(project, held.id, approve=False, reason="no")))
        [event] = project.audit.search(AuditFilter(action="llm.deny"))
        assert event.event.resource == f"call/{held.id}"
        assert desk.ask() == ("A person denied this call of 'refund'.", 0)
        assert len(project.audit.search(AuditFilter(action="llm.deny"))) == 1


def test_the_commands_show_and_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def said(*words: str) -> str:
        done = CliRunner().invoke(cli, ["llm", *words])
        assert done.exit_code == 0, done.output
        return done.output

    with closing(opened(tmp_path)) as project:
        assert said("approvals") == "No call waits.\n"
        desk = Desk(project)
        desk.ask()
        [held] = held_calls(project)
        assert '{"by": "card", "order": 7}' in said("approvals")
        assert f"{held.id} (refund of desk) is approved by " in said("approve", held.id)
        assert desk.ask()[1] == 1
        assert "used" in said("approvals", "--all")
        desk.ask("k2")
        assert "is denied by" in said("deny", held_calls(project)[0].id, "--reason", "no")


def test_a_question_expires_and_is_deleted(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as project:
        desk = Desk(project)
        desk.ask()
        [held] = held_calls(project)

        def older(by_us: int) -> None:
            with project.engine.begin() as connection:
                connection.execute(sa.text("UPDATE held_calls SET asked_at = asked_at - :by"), {"by": by_us})

        older(DAY)
        assert held_calls(project) == []
        with pytest.raises(Conflict):
            decide(project, held.id, approve=True)
        desk.ask()
        assert len(held_calls(project, all_=True)) == 2
        older(30 * DAY)
        desk.ask()
        assert len(held_calls(project, all_=True)) == 1


def test_few_calls_wait_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "MOST_WAITING", 3)
    with closing(opened(tmp_path)) as project:
        desk = Desk(project)
        for order in range(3):
            desk.upstream.arguments = json.dumps({"order": order})
            desk.ask()
        desk.upstream.arguments = json.dumps({"order": -1})
        assert desk.ask() == ("Too many calls wait for approval, so 'refund' is not called.", 0)
        assert desk.ask("k2")[0].startswith("The call of 'refund' waits")


def test_without_a_catalog_no_call_gets_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(opened(tmp_path)) as project:
        desk = Desk(project)

        def away(*_: object) -> None:
            raise Unavailable("The catalog does not respond.")

        monkeypatch.setattr(project.held_calls, "ask", away)
        assert desk.ask() == ("Approvals cannot be looked up now; ask again later.", 0)


def test_a_caller_does_not_approve_their_own_call(tmp_path: Path) -> None:
    with closing(opened(tmp_path, "approvals = 1\n")) as project:
        Desk(project).ask()
        [held] = held_calls(project)
        with pytest.raises(Denied):
            decide(project, held.id, approve=True)
