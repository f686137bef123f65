"""Filters of a text index pass what their evaluation passes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings

from kit.conditions import IDS, ROWS, VALUES, conditions, passing_ids
from kit.depth import examples
from mainspring.core.expr.tree import Node
from mainspring.vectors.adapters.tantivy import TantivyTextIndex, TantivyTextStore
from mainspring.vectors.conformance_store import FIELDS


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TantivyTextIndex]:
    made = TantivyTextStore(tmp_path_factory.mktemp("texts")).create("i", FIELDS)
    made.upsert(IDS[::2], ["word"] * len(IDS[::2]), {name: values[::2] for name, values in VALUES.items()})
    made.upsert(IDS[1::2], ["word"] * len(IDS[1::2]), {name: values[1::2] for name, values in VALUES.items()})
    yield made
    made.close()


@pytest.mark.timeout(3600)
@settings(max_examples=examples(gate=150, deep=5_000), deadline=None)
@given(where=conditions())
def test_a_filter_passes_what_its_evaluation_passes(index: TantivyTextIndex, where: Node) -> None:
    (hits,) = index.search(["word"], ROWS, where=where)
    assert {hit.id for hit in hits} == passing_ids(where)
