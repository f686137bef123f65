"""Collections and chains of answers as `apply` stores them: made again, they are as they were declared."""

from __future__ import annotations

import msgspec
import pytest

from kit.answering import PAGES
from mainspring.core.errors import Invalid
from mainspring.data.model import Source
from mainspring.ledger.model import Log
from mainspring.llm.answers.declaring import Answers, Retriever
from mainspring.llm.answers.stored import stored_chain, stored_collection
from mainspring.llm.answers.versions import recipe_file, restored
from mainspring.llm.declaring import LanguageModel, UpstreamModel
from mainspring.llm.prompts import Prompt, Variable
from mainspring.vectors.chunking import declaring as chunks
from mainspring.vectors.declaring import Collection, Encoder, Reranker

ENCODER = Encoder("words")
TIMED = Source("timed", schema={**PAGES.schema}, event_time="at", id="path", pii=["body"])
DOCS = Collection(
    "docs", source=TIMED, text="body", key="path", chunk=chunks.markdown(64, overlap=8), encoder=ENCODER, fields=["at"],
    words=True,
)  # fmt: skip
MODEL = LanguageModel("local", upstreams=[UpstreamModel("here", "tiny")])
PROMPT = Prompt(
    "own", "{sources} {question}", system="{{cite}}", variables={"sources": Variable(provenance="retrieved")}
)
RETRIEVER = Retriever("nearest", collection=DOCS, k=3, min_score=0.2, rerank="words")
JUDGE = Reranker("judge", service="far", timeout="500ms")
JUDGED = Retriever("judged", collection=DOCS, rerank=JUDGE)


def stored(item: Collection | Retriever | Answers) -> str:
    return msgspec.json.encode(item.stored()).decode()


@pytest.mark.parametrize(
    "chain",
    [
        Answers("plain", retriever=RETRIEVER),
        Answers("judged", retriever=JUDGED),
        Answers("rewritten", retriever=RETRIEVER, model=MODEL, rewrite=True, keys=["a"], seed=None),
        Answers(
            "own", retriever=RETRIEVER, model=MODEL, prompt=PROMPT, rewrite=Prompt("again", "{question}"),
            not_found="?", log=Log(sync=True, personal="leave out"),
        ),
    ],
)  # fmt: skip
def test_a_chain_has_its_digest_again(chain: Answers) -> None:
    collection = stored_collection(stored(DOCS))
    made = stored_chain(stored(chain), {"docs": collection}, {"local": MODEL})
    again = restored(recipe_file(chain), made, {"docs": DOCS}, {"local": MODEL})
    assert again.digest == made.digest == chain.digest
    assert made.stored() == {**chain.stored()}
    assert (made.keys, made.log) == (chain.keys, chain.log)


def test_a_collection_has_its_index_again() -> None:
    made = stored_collection(stored(DOCS))
    assert made.index_name("digest", 8) == DOCS.index_name("digest", 8)
    assert made.filters == DOCS.filters
    assert made.source.pii == ("body",)


def test_what_is_not_there_or_of_another_version_is_refused() -> None:
    for content in ("{}", "[]", "{", stored(DOCS).replace('"text"', '"txet"')):
        with pytest.raises(Invalid):
            stored_collection(content)
    chain = stored(Answers("plain", retriever=RETRIEVER))
    with pytest.raises(Invalid, match="needs the collection 'docs'"):
        stored_chain(chain, {}, {})
    with pytest.raises(Invalid, match="another version"):
        stored_chain(chain.replace('"keys"', '"kyes"'), {"docs": DOCS}, {})
