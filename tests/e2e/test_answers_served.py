"""A newcomer's way to answers over HTTP: declare, apply, build, up, and ask with the `openai` client; then what is left
of it after `kill -9`, and while the catalog is away.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kit.depot import Answer, Depot, ask, opened
from kit.depth import DEEP
from kit.encoders import write_encoder
from kit.later import later
from kit.scripted_upstream import Script, Upstream, scripted
from kit.servers import PostgresServer, running
from kit.waiting import wait_until
from mainspring.core.time import DAY, to_datetime
from mainspring.ledger.model import Selection
from mainspring.llm.answers.rating import FOLDER, Rating
from mainspring.llm.answers.recording import recorded_answer
from mainspring.operations.access import add_account, grant_role, parse_grant
from mainspring.operations.answer_feedback import ingest_ratings
from mainspring.operations.ingest import landed
from mainspring.operations.keys import create_key
from mainspring.operations.promote import promote
from mainspring.operations.rollout import interventions
from mainspring.operations.rollout.carrying_out import controller
from mainspring.security.model import KeyScope, Kind

openai = later("openai")

TOML = """\
name = "library"
modules = ["library"]

[profiles.local]
{catalog}
"""
DECLARED = '''\
"""Answers from the pages of two tenants."""

import mainspring as ms

pages = ms.Source("pages", schema={"path": ms.String, "body": ms.String, "team": ms.String}, event_time="at", id="path")
docs = ms.Collection(
    "docs", source=pages, text="body", key="path", chunk=ms.chunks.sentences(tokens=12), encoder=ms.Encoder("small"),
    tenant="team", words=True,
)
assistant = ms.LanguageModel(
    "assistant", upstreams=[ms.UpstreamModel("local", "tiny")],
    quotas=[ms.Quota("words", per="month", tokens=1_000_000, by="all")],
)
retriever = ms.Retriever("nearest", collection=docs, k=2)
ms.Answers("help", retriever=retriever, model=assistant, log=ms.Log(sync=True))
ms.Answers("quoted", retriever=retriever, log=ms.Log(sync=True))
ratings = ms.Source(
    "ratings", schema={"answer": ms.String, "helpful": ms.Boolean, "stars": ms.Int32, "reason": ms.String},
    event_time="at", id="answer",
)
ms.Answers(
    "told", retriever=retriever, model=assistant, quotas=[ms.Quota("asked", per="month", requests=1000)],
    feedback=[ratings.helpful, ratings.stars],
)
ms.Monitor(collection="docs")
'''
CAT, DOG = "The cat sat on a mat.", "Dogs ran far away."


@dataclass(frozen=True)
class Library:
    """The project, built and applied, and the key of a service that may ask for the tenant `cats`."""

    depot: Depot
    key: str
    upstream: Upstream
    away: Callable[[], AbstractContextManager[None]]  # while the catalog is

    @property
    def environment(self) -> dict[str, str]:
        return {"MAINSPRING_LLM_LOCAL_URL": self.upstream.url}

    def ask(self, chain: str, question: str, **more: Any) -> Answer:
        return ask(self.depot.gateway, "POST", f"/v1/answers/{chain}", {"question": question, **more}, key=self.key)

    def ready(self) -> bool:
        answer = ask(self.depot.gateway, "GET", "/v1/models", key=self.key)
        return answer.status == 200 and len(answer.body["data"]) == 3

    @contextmanager
    def gateway(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run the process of the gateway alone, inside the block: one of its own, which a signal kills at once."""
        command = [sys.executable, "-m", "mainspring.processes.gateway", "--project", self.depot.root]
        with (self.depot.root / "log").open("ab") as log, subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.depot.environment | self.environment
        ) as process:  # fmt: skip
            try:
                wait_until(self.ready, "the gateway to serve its chains")
                yield process
            finally:
                process.kill()


@contextmanager
def catalog(file: Path) -> Iterator[tuple[str, Callable[[], AbstractContextManager[None]]]]:
    """Give the setting of a catalog, and a context while which it is away: a server in the deep run, else a file."""
    if not DEEP:
        yield "", lambda: moved(file)
        return
    with running(PostgresServer) as server:
        yield f'catalog = "{server.fresh().text}"', lambda: stopped(server)


@contextmanager
def moved(file: Path) -> Iterator[None]:
    file.rename(file.with_suffix(".away"))
    file.mkdir()
    yield
    file.rmdir()
    file.with_suffix(".away").rename(file)


@contextmanager
def stopped(server: PostgresServer) -> Iterator[None]:
    server.stop(signal.SIGKILL)
    yield
    server.start()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    root = tmp_path_factory.mktemp("library")
    with catalog(root / ".mainspring" / "catalog.db") as (setting, away):
        yield from made(root, tmp_path_factory.mktemp("encoder"), setting, away)


def made(
    root: Path, encoder: Path, setting: str, away: Callable[[], AbstractContextManager[None]]
) -> Iterator[Library]:
    depot = Depot(root)
    (root / "mainspring.toml").write_text(TOML.format(catalog=setting))
    (root / "library.py").write_text(DECLARED)
    at = to_datetime(1_700_000_000_000_000)
    rows = [{"path": path, "body": body, "team": team, "at": at}
            for path, body, team in (("cat", CAT, "cats"), ("dog", DOG, "dogs"))]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), root / "pages.parquet")
    depot.json("encoders", "add", "small", write_encoder(encoder))
    depot.json("ingest", "pages", "pages.parquet")
    depot.json("apply")
    depot.json("collections", "build", "docs")
    project = opened(depot)
    account = add_account(project, Kind.SERVICE, "catteries")
    for resource in ("endpoint/help", "endpoint/quoted", "endpoint/told", "collection/docs", "tenant/cats"):
        grant_role(project, parse_grant(project, "analyst", "service:catteries", resource))
    key = create_key(project, "site", [KeyScope.PREDICT], DAY, owner=account.id)
    project.close()
    with scripted() as upstream:
        upstream.usual = Script(words=("On a mat ", "[1]."), usage=(300, 0, 4, 0))
        yield Library(depot, key, upstream, away)


def test_a_newcomer_asks_with_the_openai_client(library: Library) -> None:
    depot = library.depot
    with depot.up(environment=library.environment):
        wait_until(library.ready, "the chains")
        client = openai.OpenAI(
            api_key=library.key, base_url=f"http://127.0.0.1:{depot.gateway}/v1", max_retries=0,
            http_client=openai.DefaultHttpxClient(trust_env=False),
        )  # fmt: skip
        with client:
            assert [each.id for each in client.models.list()] == ["help", "quoted", "told"]
            said = client.chat.completions.create(model="help", messages=[{"role": "user", "content": CAT}])
            message: Any = said.choices[0].message
            assert message.content == "On a mat [1]."
            assert [each.file_citation["file_id"] for each in message.annotations] == ["cat"]
        found = ask(depot.gateway, "POST", "/v1/collections/docs/search", {"query": [CAT, DOG]}, key=library.key)
        assert [[hit["source"] for hit in hits] for hits in found.body["results"]] == [["cat"], ["cat"]]
        assert library.ask("help", DOG, tenant="dogs").status == 403
        document = ask(depot.gateway, "GET", "/v2/openapi.json", key=library.key).body
        parameter = document["paths"]["/v1/answers/{model}"]["post"]["parameters"][0]
        assert parameter["schema"]["examples"] == ["help", "quoted", "told"]
    project = opened(depot)
    project.predictions.compact()
    searched = [each for part in project.predictions.scan(Selection(endpoint="docs")) for each in part]
    project.close()
    assert [(each.outputs["found"], each.outputs["hits"], each.share) for each in searched] == [(True, 1, 1.0)] * 2
    assert not any(word in repr(each) for each in searched for word in (CAT, DOG))
    replayed = depot.run("answers", "replay", said.id, "--json", environment=library.environment).document
    assert {replayed[part] for part in ("retrieved", "prompt", "reply")} == {"identical"}


def test_callers_rate_their_own_answers_and_nobody_elses(library: Library) -> None:
    project = opened(library.depot)
    other = create_key(project, "other", [KeyScope.PREDICT], DAY, owner=add_account(project, Kind.SERVICE, "other").id)
    for resource in ("endpoint/told", "tenant/cats"):
        grant_role(project, parse_grant(project, "analyst", "service:other", resource))
    project.close()

    def rate(answer: str, rating: object, key: str = library.key, **more: object) -> Answer:
        body = {"answer": answer, "rating": rating, **more}
        return ask(library.depot.gateway, "POST", "/v1/answers/told/ratings", body, key=key)

    def rows() -> list[Any]:
        project = opened(library.depot)
        try:
            return landed(project, "ratings", 10) if project.lake.version("ratings") is not None else []
        finally:
            project.close()

    with library.gateway() as process:
        answer = library.ask("told", CAT).body["id"]
        wait_until(lambda: rate(answer, "up", column="helpful", reason="So it is.").status == 202, "the answer")
        assert rate(answer, "up", column="helpful", reason="So it is.").status == 202  # the same again
        assert rate(answer, 4, column="stars").body == {"answer": answer, "column": "stars", "rating": 4}
        unknown = rate("01JZ0000000000000000000000", "up", column="helpful")
        assert (unknown.status, unknown.body["error"]["code"]) == (404, "answer_not_found")
        assert rate("../../etc/passwd", "up", column="helpful").status == 404
        foreign = rate(answer, 1, other, column="stars")
        assert (foreign.status, foreign.body["error"]["code"]) == (404, "answer_not_found")
        for wrong in (
            rate(answer, 1),  # of which of the two columns?
            rate(answer, "best", column="helpful"),
            rate(answer, 0.5, column="stars"),
            rate(answer, 2**40, column="stars"),
            rate(answer, True, column="stars"),
            rate(answer, "up", column="reason"),
            rate(answer, "up", column="helpful", reason="x" * 2001),
            rate(answer, "up", column="helpful", at="now"),
        ):
            assert wrong.status == 400, wrong
        assert rate(answer, "up", "msp_none", column="helpful").status == 401
        process.kill()  # what was taken is on the disk
    assert rows() == []
    project = opened(library.depot)
    kept = project.settings.state / FOLDER
    gone = Rating(answers="told", answer="01JZ0000000000000000000000", column="helpful", value=True, reason="Mine.")
    (kept / "gone.json").write_bytes(msgspec.json.encode(gone))  # its answer was erased meanwhile
    assert [ingest_ratings(project), ingest_ratings(project)] == [2, 0]
    assert not [path for path in kept.rglob("*") if path.is_file()]
    project.close()
    newest = rows()[0]
    assert [newest[name] for name in ("answer", "helpful", "stars", "reason")] == [answer, True, 4, "So it is."]


def test_each_answer_that_was_given_is_in_the_log_once_also_after_a_kill(library: Library) -> None:
    given = []
    with library.gateway() as process:
        for number in range(6):
            answer = library.ask("quoted", f"{CAT} {number}")
            assert answer.status == 200, answer
            given.append(answer.body["id"])
            if number == 5:
                os.kill(process.pid, signal.SIGKILL)
    project = opened(library.depot)
    project.predictions.compact()
    kept = [each.id for part in project.predictions.scan(Selection(endpoint="quoted")) for each in part]
    project.close()
    assert sorted(kept) == sorted({*kept, *given})


def test_who_hangs_up_in_an_answer_stops_the_model_pays_what_it_wrote_and_the_log_has_what_was_sent(
    library: Library,
) -> None:
    words = tuple(f"word{number} " for number in range(400))
    library.upstream.then(Script(words=("The cat ", "sat [1]. ", *words), between_s=0.02))
    body = json.dumps({"question": CAT, "stream": True}).encode()
    head = (
        f"POST /v1/answers/told HTTP/1.1\r\nhost: 127.0.0.1:{library.depot.gateway}\r\n"
        f"authorization: Bearer {library.key}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    with library.gateway() as process:
        before = spent(library)
        with socket.create_connection(("127.0.0.1", library.depot.gateway)) as connection:
            connection.sendall(head.encode() + body)
            got = b""
            while b'word9"' not in got:
                part = connection.recv(65536)
                assert part, got
                got += part
            assert library.upstream.heard[-1].json["stream"] is True
            assert b"event: answer" not in got
        assert library.upstream.heard[-1].left.wait(20)  # long before its 400 words
        wait_until(lambda: spent(library)["words"] > before.get("words", 0), "the charge")
        process.terminate()  # which writes what waits
        process.wait(20)
    told = spent(library)
    assert 10 < told["words"] - before.get("words", 0) < 300  # of its prompt and some of its words
    assert told["asked"] == before.get("asked", 0) + 1
    project = opened(library.depot)
    project.predictions.compact()
    answers = [
        recorded_answer(project.predictions.revealed(each)).answer
        for part in project.predictions.scan(Selection(endpoint="told"))
        for each in part
    ]
    (kept,) = [each for each in answers if each.finish == "cut"]
    project.close()
    sent = "".join(
        json.loads(line[6:])["text"] for line in got.decode().splitlines() if line.startswith('data: {"text')
    )
    assert kept.text.startswith(sent)
    assert len(kept.text) < 3000
    assert (kept.found, kept.citations[0].document) == (True, "cat")
    assert f'"id":"{kept.id}"' in got.decode()


def spent(library: Library) -> dict[str, float]:
    return {each["quota"]: each["spent"] for each in library.depot.json("quotas")}


def test_a_gateway_without_its_catalog_answers_from_its_copy(library: Library) -> None:
    with library.gateway():
        assert library.ask("help", CAT).status == 200
    with library.away(), library.gateway():
        answer = library.ask("help", CAT)
        assert (answer.status, answer.body["text"]) == (200, "On a mat [1].")
        assert answer.body["citations"][0]["text"] == CAT
        assert library.ask("quoted", CAT).status == 200
        assert library.ask("quoted", DOG, tenant="dogs").status == 403
        chat = {"model": "help", "messages": [{"role": "user", "content": CAT}]}
        assert ask(library.depot.gateway, "POST", "/v1/chat/completions", chat, key=library.key).status == 200
        wait_until(
            lambda: "catalog_stale_since" in ask(library.depot.gateway, "GET", "/v2/health/ready").text,
            "the gateway to say that it is stale",
        )


def test_a_rollout_of_a_chain_is_served_and_ends_at_once(library: Library) -> None:
    project = opened(library.depot)
    assert promote(project, "quoted").version == "1"
    project.close()
    changed = DECLARED.replace('"quoted", retriever=retriever,', '"quoted", retriever=retriever, max_tokens=9,')
    (library.depot.root / "library.py").write_text(f'{changed}ms.Rollout("quoted", steps=(0.5,))\n')
    library.depot.json("apply")
    project = opened(library.depot)
    with library.gateway():
        assert {library.ask("quoted", CAT).body["version"] for _ in range(6)} == {"1"}
        interventions.start(project, "quoted")
        controller(project).tick()
        wait_until(lambda: library.ask("quoted", CAT).body["version"] == "2", "a question to get the candidate")
        interventions.end(project, "quoted", "stop")
        wait_until(
            lambda: {library.ask("quoted", CAT).body["version"] for _ in range(12)} == {"1"}, "the champion alone"
        )
    project.predictions.compact()
    rows = [each for part in project.predictions.scan(Selection(endpoint="quoted")) for each in part if each.rollout]
    project.close()
    assert {(each.version, each.weight) for each in rows} >= {("1", 0.5), ("2", 0.5)}
