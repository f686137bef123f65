"""Embeddings as features: both reads against an oracle bit for bit, each text embedded once, versions, similarity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

import mainspring as ms
from kit.depth import examples
from kit.encoders import WordEncoder
from kit.oracle import Feature, Row, value_at
from kit.reviews import LAG, SHOPS, START, ReviewText, batch, reviews, shop
from mainspring.core.errors import Invalid
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import HOUR, ManualClock, from_datetime
from mainspring.data import duck
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ingest import Ingestor
from mainspring.data.model import SEQUENCE
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.definitions import dump, load
from mainspring.features.functions.deriving import Deriver
from mainspring.features.functions.encoding import EncoderRunner
from mainspring.features.functions.model import DerivedSource
from mainspring.features.functions.process import FunctionFailed
from mainspring.features.layout import slot
from mainspring.features.materialise import Materialiser
from mainspring.features.model import FeatureView
from mainspring.features.offline import point_in_time
from mainspring.features.online import OnlineReader

WIDTH = 5
SMALL = ms.Encoder("small", model="small:1", dimension=WIDTH)
replies = replace(reviews, name="replies")
Reviewed = ms.embedding("Reviewed", source=reviews, column="text", entity=shop, encoder=SMALL)
Replied = ms.embedding("Replied", source=replies, column="text", entity=shop, encoder=SMALL)


@ms.on_demand_features
class Match:
    """How alike a shop's last review and its last reply are."""

    similarity = ms.cosine(Reviewed, Replied)


class World:
    """A lake with reviews and replies, what embeds them, and an online store."""

    def __init__(self, dimension: int = WIDTH) -> None:
        self.lake, self.locks, self.clock = MemoryLake(), MemoryLocks(), ManualClock(START + 10 * HOUR)
        self.ingestor = Ingestor(self.lake, self.locks, self.clock)
        self.encoder = WordEncoder(dimension)
        engines = {"encoder": lambda: EncoderRunner(lambda _: self.encoder)}
        self.deriver = Deriver(self.lake, self.ingestor, self.locks, engines=engines)

    def land(self, source: ms.Source, rows: list[dict[str, Any]]) -> None:
        self.ingestor.ingest(source, rows, keyings={"shop": ("shop",)})

    def derive(self, view: FeatureView = Reviewed) -> Any:
        assert isinstance(view.source, DerivedSource)
        return self.deriver.derive(view.source, {"shop": ("shop",)})

    def rows(self, source: ms.Source) -> list[Row]:
        with duck.connect() as con:
            duck.register(con, "rows_", self.lake.scan(source.name))
            found = con.sql(f"SELECT * FROM rows_ ORDER BY {SEQUENCE}").to_arrow_table().to_pylist()
        return [
            Row((row["shop"],), from_datetime(row["written_at"]), from_datetime(row["read_at"]), row[SEQUENCE], row)
            for row in found
        ]


def vector_at(rows: Sequence[Row], key: str, at: int) -> list[float] | None:
    """Return the vector of a shop's last text, by brute force."""
    text = value_at(Feature("last", of=lambda values: values["text"] or None), rows, (key,), at, LAG)[0]
    return None if text is None else [float(each) for each in WordEncoder(WIDTH).encode([text])[0]]


def test_both_reads_are_the_oracles_bit_for_bit_and_so_is_the_similarity() -> None:
    world = World()
    for seed in range(examples(gate=2, deep=6)):
        world.land(reviews, batch(seed, 12))
        world.land(replies, batch(10 + seed, 12))
        assert [world.derive(view).failed for view in (Reviewed, Replied)] == [0, 0]
    texts = {view.name: world.rows(source) for view, source in ((Reviewed, reviews), (Replied, replies))}
    instants = sorted({row.visible(LAG) + beside for rows in texts.values() for row in rows for beside in (0, 1)})
    asked = [(key, at) for at in instants for key in SHOPS]
    observed = pa.table(
        {"shop": [key for key, _ in asked], "_at": pa.array([at for _, at in asked], pa.timestamp("us", tz="UTC"))}
    )
    groups = [Reviewed, Replied, Match]
    offline = point_in_time(observed, groups, world.lake.scan, schema={"shop": ms.String}).to_pylist()
    assert any(row["Match.similarity"] is not None for row in offline)
    for row, (key, at) in zip(offline, asked, strict=True):
        vectors = {name: vector_at(rows, key, at) for name, rows in texts.items()}
        for name, vector in vectors.items():
            found = [row[f"{name}.text_{place}"] for place in range(WIDTH)]
            assert found == (vector or [None] * WIDTH)
        left, right = vectors.values()
        wanted = None if left is None or right is None else float(np.dot(left, right))
        assert row["Match.similarity"] == (None if wanted is None else pytest.approx(wanted, abs=1e-6))
    for at in instants[:: examples(gate=31, deep=3)]:
        world.clock.set(at)
        online = MemoryOnlineStore()
        for view in (Reviewed, Replied):
            Materialiser(world.lake, online, world.clock).run(view)
        read = OnlineReader(groups, online, schema={"shop": ms.String}).read({"shop": SHOPS}, at).features
        for place, key in enumerate(SHOPS):
            same = offline[asked.index((key, at))]
            assert {name: column[place] for name, column in read.items()} == {name: same[name] for name in read}


def test_each_distinct_text_is_embedded_once_and_blank_ones_never() -> None:
    world = World()
    world.land(reviews, batch(1, 60))
    first = world.derive()
    world.land(reviews, batch(2, 60))
    second = world.derive()
    texts = {row.values["text"] for row in world.rows(reviews)} - {None, ""}
    assert sorted(world.encoder.asked) == sorted(texts)
    assert (first.rows, second.rows + second.kept) == (60, 60)
    assert second.kept > 0
    world.land(reviews, [{**row, "text": "something new"} for row in batch(3, 2)])
    world.derive()
    assert world.encoder.asked[-1] == "something new"
    assert len(world.encoder.asked) == len(texts) + 1


def test_rows_of_a_restored_source_are_embedded_from_what_is_known() -> None:
    world = World()
    world.land(reviews, batch(1, 20))
    version = world.lake.version("reviews")
    world.land(reviews, batch(2, 20))
    world.derive()
    asked = len(world.encoder.asked)
    world.lake.restore("reviews", version)
    world.derive()
    assert len(world.encoder.asked) == asked


def test_another_version_of_the_encoder_is_another_feature() -> None:
    other = ms.embedding(
        "Reviewed", source=reviews, column="text", entity=shop,
        encoder=ms.Encoder("small", model="small:2", dimension=WIDTH),
    )  # fmt: skip
    assert other.source.name != Reviewed.source.name
    assert slot(other) != slot(Reviewed)
    again = ms.embedding("Reviewed", source=reviews, column="text", entity=shop, encoder=SMALL)
    assert slot(again) == slot(Reviewed)


def test_a_bundle_has_the_definition() -> None:
    observations = ms.Observations(reviews, keys=[shop], at=ms.col("written_at"))
    (view, _, match), _ = load(dump([Reviewed, Replied, Match], observations))
    assert slot(view) == slot(Reviewed)
    assert msgspec.to_builtins(match.features) == msgspec.to_builtins(Match.features)


def test_an_encoder_of_another_dimension_is_refused_and_a_vector_of_no_number_is_none() -> None:
    world = World(dimension=WIDTH + 1)
    world.land(reviews, batch(1, 30))
    with pytest.raises(FunctionFailed, match="gives 6 dimensions, and says 5") as refused:
        world.derive()
    assert refused.value.fix == "write dimension=6."

    class Broken(WordEncoder):
        def encode(self, texts: Sequence[str]) -> Any:
            return super().encode(texts) * np.array([np.nan if "bad" in text else 1 for text in texts])[:, None]

    world.encoder = Broken(WIDTH)
    report = world.derive()
    assert report.failed == sum("bad" in (row.values["text"] or "") for row in world.rows(reviews)) > 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"encoder": ms.Encoder("small", dimension=5)}, r'model="small:1"'),
        ({"encoder": ms.Encoder("small", model="small@live", dimension=5)}, r'model="small:1"'),
        ({"encoder": ms.Encoder("small", model="small:1")}, "dimension=384"),
        ({"encoder": ms.Encoder("far", service="far", dimension=4096)}, "up to 1024"),
        ({"column": "stars"}, r"\['shop', 'text'\]"),
        ({"column": "nothing"}, r"\['shop', 'text'\]"),
        ({"encoder": "small"}, "give an ms.Encoder"),
    ],
)
def test_an_embedding_that_cannot_be_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        ms.embedding("Bad", **{"source": reviews, "column": "text", "entity": shop, "encoder": SMALL, **given})


def test_vectors_of_two_encoders_have_no_similarity() -> None:
    other = ms.embedding(
        "Other", source=replies, column="text", entity=shop, encoder=ms.Encoder("far", service="far", dimension=WIDTH)
    )
    with pytest.raises(Invalid, match="different encoders"):
        ms.cosine(Reviewed, other)
    with pytest.raises(Invalid, match="no embedding"):
        ms.cosine(Reviewed, ReviewText)


def test_the_similarity_of_the_largest_vectors_can_be_computed() -> None:
    wide = ms.Encoder("far", service="far", dimension=1024)
    left, right = (
        ms.embedding(name, source=source, column="text", entity=shop, encoder=wide)
        for name, source in (("Left", reviews), ("Right", replies))
    )
    group = ms.on_demand_features(type("Wide", (), {"similarity": ms.cosine(left, right)}))
    observations = ms.Observations(reviews, keys=[shop], at=ms.col("written_at"))
    (same,), _ = load(dump([group], observations))
    assert msgspec.to_builtins(same.features) == msgspec.to_builtins(group.features)
    reader = OnlineReader([group], MemoryOnlineStore(), schema={"shop": ms.String})
    assert reader.read({"shop": SHOPS}, START).features == {"Wide.similarity": [None] * 3}
