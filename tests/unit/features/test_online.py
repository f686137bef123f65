from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import mainspring as ms
from kit.station import World, instant, train, view
from mainspring.core.errors import Corrupt, Invalid
from mainspring.core.expr import col
from mainspring.core.time import HOUR, MINUTE
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.keys import encode_key
from mainspring.features.layout import slot
from mainspring.features.model import EntityState, RequestFeatures
from mainspring.features.offline import point_in_time
from mainspring.features.online import OnlineReader
from mainspring.features.state.blobs import decode, encode

REQUEST = RequestFeatures("Trip", {"long": col("km") > 10, "rush": col("leaves_at").hour("Europe/London") == 17})
FIELDS = {"station": ms.String, "km": ms.Float32, "leaves_at": ms.Timestamp}


class CountingStore(MemoryOnlineStore):
    """A store that remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[tuple[str, bytes]]] = []

    def read(self, wanted: Any) -> list[EntityState | None]:
        self.asked.append(list(wanted))
        return super().read(wanted)


def world(*rows: dict[str, Any]) -> World:
    made = World(view(n=ms.count(window="1h"), delay=ms.last("delay", ttl="1h")), [*rows])
    made.store = CountingStore()
    made.materialiser._store = made.store
    made.clock.set(instant("11:00"))
    made.materialiser.run(made.view, horizon=HOUR)
    return made


def test_a_request_is_one_round_trip_and_reads_each_entity_once() -> None:
    made = world(train("10:30", 1.0), train("10:40", 2.0, station="bow road"))
    other = view(top=ms.max("delay", window="24h"))
    other = type(other)("Other", other.entity, other.source, other.features)
    made.materialiser.run(other)
    stations = ["mile end", "bow road", None, "mile end", "never"]
    made.store.asked.clear()
    read = OnlineReader([other, made.view], made.store).read({"station": stations}, instant("11:10"))
    assert read.features == {
        "Other.top": [1.0, 2.0, None, 1.0, None],
        "Trains.n": [1, 1, 0, 1, 0],
        "Trains.delay": [1.0, 2.0, None, 1.0, None],
    }
    assert read.statuses["Trains.n"] == ["PRESENT", "PRESENT", "MISSING", "PRESENT", "MISSING"]
    (asked,) = made.store.asked
    assert sorted(asked) == sorted(
        (name, encode_key([key]))
        for name in (slot(other), slot(made.view))
        for key in ("mile end", "bow road", "never")
    )


def test_request_features_are_the_same_in_training() -> None:
    made = world(train("10:30", 1.0))
    columns = {
        "station": ["mile end"] * 3,
        "km": [12.0, None, 3.0],
        "leaves_at": [instant("17:10"), instant("11:00"), None],
    }
    read = OnlineReader([REQUEST, made.view], made.store, schema=FIELDS).read(columns, instant("11:00"))
    observations = pa.table(
        {
            "station": columns["station"],
            "km": pa.array(columns["km"], pa.float32()),
            "leaves_at": pa.array(columns["leaves_at"], pa.timestamp("us", tz="UTC")),
            "_at": pa.array([instant("11:00")] * 3, pa.timestamp("us", tz="UTC")),
        }
    )
    offline = point_in_time(observations, [REQUEST, made.view], made.lake.scan, schema=FIELDS)
    assert read.features == {name: offline.column(name).to_pylist() for name in offline.column_names[4:]}
    assert read.features["Trip.long"] == [True, None, False]
    assert read.features["Trip.rush"] == [True, False, None]
    assert set(read.statuses) == {"Trains.n", "Trains.delay"}


def test_request_features_alone_ask_no_store() -> None:
    store = CountingStore()
    read = OnlineReader([REQUEST], store, schema=FIELDS).read({"km": [11.0], "leaves_at": [0]}, 0)
    assert read.features["Trip.long"] == [True]
    assert store.asked == []


def test_no_rows_is_no_values() -> None:
    read = OnlineReader([view(n=ms.count(window="1h")), REQUEST], MemoryOnlineStore(), schema=FIELDS).read(
        {"station": [], "km": [], "leaves_at": []}, 0
    )
    assert read.features == {"Trains.n": [], "Trip.long": [], "Trip.rush": []}


def test_what_is_missing_is_named() -> None:
    made = world()
    with pytest.raises(Invalid, match=r"schema=observations\.source\.columns"):
        OnlineReader([REQUEST], made.store)
    reader = OnlineReader([made.view, REQUEST], made.store, schema=FIELDS)
    with pytest.raises(Invalid, match="leaves_at"):
        reader.read({"station": ["x"], "km": [1.0]}, 0)
    with pytest.raises(Invalid, match="lengths"):
        reader.read({"station": ["x", "y"], "km": [1.0], "leaves_at": [0]}, 0)


def test_a_damaged_state_is_told_and_not_guessed() -> None:
    made = world()
    name = slot(made.view)
    for payload in (b"", b"\xc0", b"\x94\x01\x90\x90\x90"):
        made.store.write(name, [(encode_key(["mile end"]), EntityState(2**60, payload))])
        with pytest.raises(Corrupt, match="Trains"):
            OnlineReader([made.view], made.store).read({"station": ["mile end"]}, instant("11:00"))


def test_a_reader_a_minute_behind_reads_exactly() -> None:
    made = world(train("10:59", 1.0), train("10:30", 2.0, "11:00"))
    for now in (instant("10:59"), instant("10:59") + 1, instant("11:00") - 1, instant("11:00"), instant("11:00") + 1):
        online = {name: values[0] for name, values in made._read(now, "mile end").features.items()}
        assert online == {f"Trains.{name}": value for name, value in made.offline(now).items()}
    assert instant("11:00") - instant("10:59") == MINUTE


def test_float32_features_are_float32_values() -> None:
    narrow = col("delay").cast(ms.Float32)
    features = view(mean=ms.mean(narrow, window="1h"), big=ms.sum(narrow, window="1h"))
    made = World(features, [train("10:00", 0.1), train("10:01", 0.2), train("10:02", 3e38), train("10:03", 3e38)])
    assert made.both("10:01") == {"mean": float(np.float32(0.1)), "big": float(np.float32(0.1))}
    assert made.both("10:30")["big"] == float("inf")


def test_the_online_read_brings_nothing_heavy() -> None:
    program = """
import sys
from mainspring.features import definitions
from mainspring.features.online import reader as online
from mainspring.features.adapters import sqlite, memory
heavy = {"pyarrow", "duckdb", "pandas", "deltalake", "mlflow", "sqlalchemy"} & set(sys.modules)
raise SystemExit(f"imported {heavy}" if heavy else 0)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_state_of_an_earlier_release_is_read() -> None:
    payload = bytes.fromhex(
        "94cf0004d729b2c924009392cf0004d72a8cf04f00cf0004d72bcb3a3e0092cf0004d72a8cf04f00cf0004d72b5c5ce5009192cb401e0000"
        "00000000cb3ff0000000000000939292ce00454c8cce00454c98919201029292ce0005c661ce0005c6629392000292c09402cb4014000000"
        "000000cb4004000000000000cb400900000000000092cb0000000000000000cb40290000000000009291cd3d999191cb401e000000000000"
        "9391cf0004d72bcb3a3e0091cf0004d72b5c5ce5009291c391cb3ff0000000000000"
    )
    features = view(
        n=ms.count(window="1h"), day=ms.mean("delay", window="24h"), sd=ms.std("delay", window="24h"),
        top=ms.max("delay", window="30d"), last=ms.last("delay", ttl="2h"),
    )  # fmt: skip
    assert slot(features) == "Trains@a3ed347fec00"
    again = encode(decode(payload, "Trains"))
    assert (len(again), len(payload)) == (187, 202)
    assert decode(again, "Trains") == decode(payload, "Trains")
    store = MemoryOnlineStore()
    store.write(slot(features), [(encode_key(["mile end"]), EntityState(instant("11:00"), payload, 4))])
    read = OnlineReader([features], store).read({"station": ["mile end"]}, instant("11:30"))
    assert [values[0] for values in read.features.values()] == [1, 4.5, pytest.approx(2.677063), 7.5, 1.0]
