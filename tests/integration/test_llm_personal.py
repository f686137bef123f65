"""Personal values in calls of language models: no file of the state folder and no log has them in clear."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from kit.encoders import WordEncoder
from kit.scripted_upstream import Script, Upstream, scripted
from kit.waiting import free_port, wait_until
from mainspring.core.settings import Address
from mainspring.core.time import DAY, to_datetime
from mainspring.llm.answers.model import Question
from mainspring.llm.model import Message, Text
from mainspring.operations.answers import ask, revealed_answer
from mainspring.operations.apply import apply
from mainspring.operations.collections import build_collection
from mainspring.operations.held_calls import decide, held_calls
from mainspring.operations.ingest import land
from mainspring.operations.subjects import erasing
from mainspring.operations.subjects.naming import find_subjects
from mainspring.operations.subjects.remains import has
from mainspring.processes.gateway import build_gateway
from mainspring.project import Project
from mainspring.project.settings import load_settings
from mainspring.security.keys import issue
from mainspring.security.model import KeyScope
from mainspring.serving.http.server import serve

ANA, SAID, ASKED = "ana-7f3e9c21", "quoted-5b1d77ee", "asked-9c2f4402"
DECLARED = """
import mainspring as ms

ms.Entity("customer", keys={"customer": ms.String})
ms.Source("orders", schema={"customer": ms.String}, event_time="at", pii=["customer"])
ms.LanguageModel(
    "assistant", upstreams=[ms.UpstreamModel("local", "tiny")], cache=ms.AnswerCache(ttl="1d"),
    guard=ms.Guard(tools=[ms.Tool("refund", approval=True)], personal={"email": "redact"}),
)
pages = ms.Source(
    "pages", schema={"page": ms.String, "body": ms.String, "customer": ms.String}, event_time="at"
)
docs = ms.Collection(
    "docs", source=pages, text="body", key="page", chunk=ms.chunks.sentences(20), encoder=ms.Encoder("words")
)
ms.Answers("help", retriever=ms.Retriever("docs-search", collection=docs, k=2))
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "mainspring.toml").write_text('name = "own"\nmodules = ["own_personal"]\n[profiles.local]\n')
    (tmp_path / "own_personal.py").write_text(DECLARED)
    settings = load_settings(tmp_path, environment={})
    settings.state.mkdir()
    made = Project(settings, encoders={("words", None): WordEncoder()})
    apply(made)
    yield made
    made.close()


@asynccontextmanager
async def gateway(project: Project, upstream: Upstream) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the project's language models as the gateway's process does; the client's key may predict."""
    port = free_port()
    (project.settings.root / "mainspring.toml").write_text(
        'name = "own"\nmodules = ["own_personal"]\n[profiles.local]\n'
        f'gateway = "http://127.0.0.1:{port}"\n[profiles.local.llm.upstreams.local]\nurl = "{upstream.url}"\n'
    )
    serving_project = Project(load_settings(project.settings.root, environment={}), encoders=project.encoders)
    token = issue(
        project.key_store, name="caller", scopes=(KeyScope.PREDICT,), lifetime_us=DAY, clock=project.wall,
        pepper=project.pepper,
    )  # fmt: skip
    started, stop = asyncio.Event(), asyncio.Event()
    built = build_gateway(serving_project)
    serving = asyncio.create_task(serve(built, Address("127.0.0.1", port), stop=stop, started=started.set))
    await started.wait()
    headers = {"x-api-key": token, "authorization": f"Bearer {token}"}
    base = f"http://127.0.0.1:{port}/v1"
    async with httpx.AsyncClient(base_url=base, headers=headers, trust_env=False, timeout=20) as client:

        async def known() -> bool:
            found = await client.get("/models")
            return found.status_code == 200 and bool(found.json()["data"])

        end = asyncio.get_running_loop().time() + 15
        while not await known() and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)  # its first look at erasures
        yield client
    stop.set()
    await serving
    serving_project.close()


def files_with(project: Project, *needles: str) -> list[str]:
    patterns = [re.compile(re.escape(needle.encode())) for needle in needles]
    files = [path for path in project.settings.state.rglob("*") if path.is_file()]
    return sorted(str(path.relative_to(project.settings.state)) for path in files if has(path, patterns))


def bodies(text: str) -> dict[str, dict[str, object]]:
    """Return a body for each route."""
    said = [{"role": "user", "content": text}]
    return {
        "/chat/completions": {"model": "assistant", "messages": said, "temperature": 0, "user": ANA},
        "/responses": {"model": "assistant", "input": text, "temperature": 0},
        "/messages": {"model": "assistant", "messages": said, "temperature": 0, "max_tokens": 50},
    }


def test_no_route_leaves_a_personal_value_in_a_file_or_a_log(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    refund = Script(words=(), calls={"refund": f'{{"customer": "{ANA}", "why": "{SAID}"}}'})
    faults = (
        Script(status=500, error=f"No room for {ASKED}."),
        Script(status=400, error=f"It may not ask {ASKED}."),
        Script(words=(f"{SAID} ", "and "), breaks_after=1),
        Script(words=(f"{SAID} ", "and "), error_after=1, error=f"{ASKED} of {ANA}"),
    )

    async def body(upstream: Upstream) -> None:
        upstream.usual = Script(words=(f"{SAID} ", f"of {ANA}."))
        async with gateway(project, upstream) as client:
            for stream in (False, True):
                for path, asks in bodies(f"{ASKED} by {ANA} {stream}").items():
                    for _ in range(2):
                        reply = await client.post(path, json={**asks, "stream": stream})
                        assert reply.status_code == 200, reply.text
                        assert stream or SAID in reply.text
                for script in faults:
                    upstream.then(script)
                    path, asks = next(iter(bodies(f"{ASKED} {ANA} {script} {stream}").items()))
                    await client.post(path, json={**asks, "stream": stream})
            upstream.then(refund)
            path, asks = next(iter(bodies(f"{ASKED} refund").items()))
            reply = await client.post(path, json=asks)
            assert "waits for a person's approval" in reply.text
            bad = {**asks, "messages": [{"role": f"{ASKED}", "content": ANA}]}
            assert (await client.post(path, json=bad)).status_code == 400
            assert (await client.post(path, json={**asks, "model": ASKED})).status_code in (403, 404)

    with caplog.at_level("DEBUG", "mainspring"), scripted() as upstream:
        asyncio.run(body(upstream))
    assert len(upstream.heard) == 6 + 2 * len(faults) + 1, "earlier answers were given"
    (held,) = held_calls(project)
    assert ANA in held.arguments
    assert decide(project, held.id, approve=False).arguments == held.arguments
    assert files_with(project, ANA, SAID, ASKED) == []
    ours = [each for each in caplog.records if each.name.startswith("mainspring")]
    logged = "\n".join(each.getMessage() + str(each.exc_text or "") for each in ours)
    assert "broke off" in logged
    assert [each for each in (ANA, SAID, ASKED) if each in logged] == []


def test_a_chain_of_answers_keeps_its_texts_encrypted(project: Project) -> None:
    row = {"page": "refunds", "body": "Refunds go to the card.", "customer": "ben"}
    land(project, "pages", [{**row, "at": to_datetime(project.wall.now())}])
    build_collection(project, "docs")
    before = (Message(role="user", content=(Text(f"I am {ANA}."),)),)
    answer = ask(project, "help", Question(f"Do refunds go to the card of {ASKED}?", before))
    assert answer.citations
    wait_until(lambda: any(each.id == answer.id for each in project.predictions.recent(limit=5)), "the record")
    assert files_with(project, ASKED, ANA) == []
    project.predictions.compact()
    assert revealed_answer(project, answer.id).answer.question.endswith(f"{ASKED}?")
    assert files_with(project, ASKED, ANA) == []


def test_what_a_gateway_is_asked_of_documents_is_in_no_file_and_ends_with_an_erasure(project: Project) -> None:
    at = to_datetime(project.wall.now())
    rows = [("hers", f"The code of the door is {SAID}.", ANA), ("his", "The shop opens early on weekdays.", "ben")]
    land(project, "pages", [{"page": page, "body": body, "customer": of, "at": at} for page, body, of in rows])
    build_collection(project, "docs")

    async def body(upstream: Upstream) -> None:
        async with gateway(project, upstream) as client:
            asks = {"question": f"The code of the door is? {ASKED}"}
            for stream in (False, True):
                reply = await client.post("/answers/help", json={**asks, "stream": stream})
                assert reply.status_code == 200, reply.text
                assert SAID in reply.text
            as_model = {"model": "help", "messages": [{"role": "user", "content": asks["question"]}]}
            assert SAID in (await client.post("/chat/completions", json=as_model)).text
            assert files_with(project, ASKED) == []
            (ana,) = find_subjects(project, "customer", [ANA])
            await asyncio.to_thread(erasing.erase, project, [ana])
            end = asyncio.get_running_loop().time() + 10
            while SAID in (await client.post("/answers/help", json=asks)).text:
                assert asyncio.get_running_loop().time() < end
                await asyncio.sleep(0.1)
            assert SAID not in (await client.post("/chat/completions", json=as_model)).text

    with scripted() as upstream:
        asyncio.run(body(upstream))
    found = files_with(project, SAID, ASKED)
    assert found == []


def test_an_erasure_ends_what_a_gateway_remembers(project: Project) -> None:
    async def body(upstream: Upstream) -> None:
        upstream.usual = Script(words=(f"{SAID} ", f"of {ANA}."))
        asks = bodies(f"Who is {ANA}?")["/chat/completions"]
        async with gateway(project, upstream) as client:

            async def remembered() -> bool:
                assert SAID in (await client.post("/chat/completions", json=asks)).text
                before = len(upstream.heard)
                await asyncio.sleep(1.2)  # the gateway has read the mark of erasures by then
                return (
                    SAID in (await client.post("/chat/completions", json=asks)).text and len(upstream.heard) == before
                )

            assert await remembered() or await remembered()
            upstream.heard.clear()
            upstream.usual = Script(words=("Nobody.",))
            for who in (ANA, "ben-11aa22bb"):
                upstream.then(Script(words=(), calls={"refund": f'{{"customer": "{who}"}}'}))
                _, asked = next(iter(bodies(f"Refund {who}.").items()))
                await client.post("/chat/completions", json=asked)
            (ana,) = find_subjects(project, "customer", [ANA])
            assert {each.store: each.rows for each in erasing.plan(project, [ana]).held}["held calls"] == 1
            await asyncio.to_thread(erasing.erase, project, [ana])
            assert ["ben-11aa22bb" in each.arguments for each in held_calls(project)] == [True]

            async def asked_again() -> bool:
                return "Nobody" in (await client.post("/chat/completions", json=asks)).text

            end = asyncio.get_running_loop().time() + 5
            while not await asked_again():
                assert asyncio.get_running_loop().time() < end
                await asyncio.sleep(0.1)
            assert len(upstream.heard) == 3, "two refunds, and the question once"
            assert await asked_again()
            assert len(upstream.heard) == 3, "two refunds, and the question once"

    with scripted() as upstream:
        asyncio.run(body(upstream))
