"""Documents, files and vectors that do not belong into a collection: refused or left out by name, with what helps."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit.collected import Desk, collection
from kit.depth import deep
from kit.encoders import WordEncoder
from mainspring.core.errors import Invalid
from mainspring.core.expr.tree import col
from mainspring.data.adapters.memory import MemoryLake
from mainspring.vectors import building
from mainspring.vectors.chunk_table import EMPTY
from mainspring.vectors.chunking import declaring as chunks
from mainspring.vectors.chunking.cutting import MOST_BYTES, cut
from mainspring.vectors.documents import read_documents
from mainspring.vectors.model import Entries, IndexSpec

GOOD = {"path": "good", "body": "Some words of it."}


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk(MemoryLake())
    desk.land(GOOD)
    yield desk
    desk.engine.dispose()


def words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


class Narrow(WordEncoder):
    """Gives vectors of another dimension than it says."""

    def encode(self, texts: Sequence[str]) -> Any:
        return super().encode(texts)[:, :3]


class Broken(WordEncoder):
    """Gives no number for texts with a word."""

    def encode(self, texts: Sequence[str]) -> Any:
        return super().encode(texts) * np.array([np.nan if "bad" in text else 1 for text in texts])[:, None]


def test_an_encoder_of_another_dimension_is_refused(desk: Desk) -> None:
    with pytest.raises(Invalid, match=r"shape \(1, 3\) for 1 texts, and says that it has 16 dimensions") as refused:
        desk.build(Narrow())
    assert refused.value.fix == "declare the dimension that its model has."
    build = desk.build(WordEncoder())
    with pytest.raises(Invalid, match="shape 1x3, and the index 16 dimensions") as other:
        desk.store.open(build.index).search(np.ones((1, 3), np.float32), 1)
    assert "embed with the encoder that the index was built with" in str(other.value)


def test_vectors_of_no_number_are_refused_and_their_document_is_left_out(desk: Desk) -> None:
    desk.land({"path": "odd", "body": "This is bad."})
    build = desk.build(Broken())
    assert (build.documents, build.examples) == (1, {"odd": building.NOT_FINITE})
    index = desk.store.create("other", IndexSpec(dimension=2))
    with pytest.raises(Invalid, match="a value that is no finite number, in row 1"):
        index.upsert(Entries(["a", "b"], np.array([[1, 2], [np.nan, 1]], np.float32)))


def test_an_empty_document_is_left_out(desk: Desk) -> None:
    desk.land({"path": "none", "body": ""})
    assert desk.build(WordEncoder()).examples == {"none": EMPTY}


def test_a_filter_on_a_missing_field_is_refused(desk: Desk) -> None:
    desk.build(WordEncoder())
    with pytest.raises(Invalid, match="'part'") as refused:
        desk.search(WordEncoder(), "words", where=col("part") == "a")
    assert "section" in str(refused.value)


def test_a_file_that_is_no_text_has_a_problem_and_no_text(tmp_path: Path) -> None:
    (tmp_path / "noise.txt").write_bytes(bytes(range(256)))
    (row,) = read_documents(tmp_path)
    assert (row["path"], row["text"], row["problem"]) == ("noise.txt", None, "no text: save it as UTF-8 or UTF-16")


def test_a_document_of_more_chunks_than_one_has_is_left_out(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "MOST_CHUNKS", 50)
    desk.land({"path": "many", "body": "".join(f"# Heading {n}\n" for n in range(51))})
    desk.land({"path": "fewer", "body": "".join(f"# Heading {n}\n" for n in range(50))})
    build = desk.build(WordEncoder())
    assert (build.documents, build.chunks) == (2, 51)
    assert build.examples == {"many": "more than 250,000 chunks: split the document, or give chunks more tokens"}


BLANKS = " \n" * 40_000
LONG = {
    "blanks": (f"one {BLANKS} two", chunks.markdown(24)),
    "no words": ("\u200b" * 50_000 + " end", chunks.tokens(24)),
    "heading": (f"<h1>{'word ' * 20_000}</h1>text", chunks.html(24)),
    "title": (f"# {'word ' * 20_000}\ntext", chunks.markdown(24)),
    "emoji": ("\U0001f600" * 60_000, chunks.sentences(1_000)),
}


@pytest.mark.parametrize("name", LONG)
def test_a_chunk_is_no_longer_than_an_index_takes(desk: Desk, name: str) -> None:
    body, chunk = LONG[name]
    desk.land({"path": name, "body": body})
    build = desk.build(WordEncoder(), collection(chunk))
    assert build.refused == {}
    texts = desk.documents()[name]
    assert max(len(text.encode()) for text in texts) <= MOST_BYTES
    assert texts[-1].endswith(body[-3:])


@deep
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["fifty megabytes", "a million headings"])
def test_a_huge_document_is_cut_in_a_time_that_grows_with_it(kind: str) -> None:
    part = "## Part\n\n" + "A sentence of six words. " * 40 + "\n\n"
    text = part * 50_000 if kind == "fifty megabytes" else "".join(f"# Heading {n}\n" for n in range(1_000_000))
    began = time.process_time()
    found = cut(chunks.markdown(200, 20), text, words, 250_001)
    assert len(found) == min(250_001, len(found))
    assert found[0].start == 0
    assert time.process_time() - began < 300
