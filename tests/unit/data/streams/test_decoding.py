"""Messages become rows, and those that cannot become dead letters with a reason that quotes nothing."""

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fastavro
import pytest
from fastavro.schema import fingerprint, to_parsing_canonical_form
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st

import mainspring as ms
from kit.depth import examples
from mainspring.core.errors import Invalid, NotFound
from mainspring.data.streams import decoding
from mainspring.data.streams.declaring import Stream
from mainspring.data.streams.decoding import Decoded, Decoding
from mainspring.data.streams.model import Message

PAY = ms.Source(
    "pay", schema={"card": ms.String, "class": ms.Int32, "amount": ms.Float64, "ok": ms.Boolean}, event_time="at"
)
FIELDS = [
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "card", "type": "string"},
    {"name": "amount", "type": ["null", "double"], "default": None},
]
V1: dict[str, Any] = {"type": "record", "name": "shop.Pay", "fields": FIELDS}
V2: dict[str, Any] = {**V1, "fields": [{"name": "desk", "type": "int"}, *FIELDS, {"name": "ok", "type": "boolean"}]}
RENAMED: dict[str, Any] = {**V1, "fields": [*FIELDS[:1], {"name": "card", "type": "int"}]}
AT = datetime(2024, 3, 1, 12, tzinfo=UTC)


def decoded(stream: Stream, *values: bytes | None, root: Path = Path()) -> Decoded:
    messages = [Message(0, number, None, value, 5) for number, value in enumerate(values)]
    return Decoding(stream, root).decode(messages)


def avro(schema: dict[str, Any], **row: Any) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(schema), row)
    return buffer.getvalue()


def single_object(schema: dict[str, Any], **row: Any) -> bytes:
    mark = bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))
    return b"\xc3\x01" + mark + avro(schema, **row)


def test_json_objects_become_rows_of_the_sources_types() -> None:
    found = decoded(
        Stream(PAY, topic="t"),
        b'{"at": "2024-03-01T13:00:00.25+01:00", "card": "a", "class": 1, "amount": 2, "ok": true, "more": [1]}',
        b'{"at": 1709294400000000}',
    )
    assert found.letters == ()
    assert found.rows.to_pylist() == [
        {"at": AT.replace(microsecond=250_000), "card": "a", "class": 1, "amount": 2.0, "ok": True},
        {"at": AT, "card": None, "class": None, "amount": None, "ok": None},
    ]
    assert decoded(Stream(PAY, topic="t", epoch="s"), b'{"at": 1709294400}').rows["at"].to_pylist() == [AT]
    assert decoded(Stream(PAY, topic="t")).rows.schema == found.rows.schema


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no value"),
        (b"", "truncated"),
        (b"{'at': 1}", "malformed"),
        (b"\xff\xfe", "malformed"),
        (b"[1]", "array"),
        (b'{"at": "2024-03-01T12:00:00"}', r"timezone.*\$\.at"),
        (b'{"at": 1.5}', r"float.*\$\.at"),
        (b'{"at": 999999999999999999}', r"\$\.at"),
        (b'{"class": 2147483648}', r"\$\.class"),
        (b'{"class": true}', r"bool.*\$\.class"),
        (b'{"card": 17}', r"int.*\$\.card"),
        (b'{"amount": "secret"}', r"str.*\$\.amount"),
        (b'{"x": ' + b"[" * 100_000, "recursion"),
    ],
)
def test_what_is_no_row_is_a_dead_letter_and_stops_no_other(value: bytes | None, reason: str) -> None:
    found = decoded(Stream(PAY, topic="t"), b'{"at": 1}', value, b'{"at": 2}')
    assert len(found.rows) == 2
    ((message, said),) = found.letters
    assert message.offset == 1
    with pytest.raises(ValueError, match=f"(?i){reason}"):
        raise ValueError(said)
    assert "secret" not in said


def test_a_very_long_message_is_a_dead_letter_with_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "LONGEST_VALUE", 1_000)
    found = decoded(Stream(PAY, topic="t"), b'{"at": 1' + b" " * 100_000 + b"}")
    assert "100,009 bytes, more than 1,000" in found.letters[0][1]
    (row,) = decoding.letter_rows(found.letters, 7, "batch").to_pylist()
    assert (row["offset"], len(row["value"]), row["_seq"], row["_batch"]) == ("0", 64 << 10, 7, "batch")


def test_avro_goes_on_with_compatible_schemas(tmp_path: Path) -> None:
    for name, schema in (("v1", V1), ("v2", V2)):
        (tmp_path / f"{name}.avsc").write_text(json.dumps(schema))
    row = {"at": AT, "card": "a", "amount": 2.5}
    both = Stream(PAY, topic="t", format="avro", schema=["v1.avsc", "v2.avsc"])
    found = decoded(
        both,
        single_object(V1, **row),
        single_object(V2, **row, desk=1, ok=False),
        avro(V2, **row, desk=1, ok=True),
        single_object(RENAMED, at=AT, card=1),
        avro(V1, **row),
        b"\xc3",
        root=tmp_path,
    )
    assert [(each["card"], each["at"], each["ok"]) for each in found.rows.to_pylist()] == [
        ("a", AT, None), ("a", AT, False), ("a", AT, True)
    ]  # fmt: skip
    assert [message.offset for message, _ in found.letters] == [3, 4, 5]
    by_id = Stream(PAY, topic="t", format="avro", schema={17: "v1.avsc", 300: "v2.avsc"})
    found = decoded(
        by_id, b"\0\0\0\0\x11" + avro(V1, **row), b"\0\0\0\0\x12" + avro(V1, **row), avro(V1, **row), root=tmp_path
    )
    assert (len(found.rows), [reason for _, reason in found.letters]) == (
        1, ["its header names no schema of the stream"] * 2
    )  # fmt: skip


def test_an_incompatible_avro_schema_is_a_dead_letter(tmp_path: Path) -> None:
    (tmp_path / "new.avsc").write_text(json.dumps(RENAMED))
    found = decoded(
        Stream(PAY, topic="t", format="avro", schema="new.avsc"), avro(RENAMED, at=AT, card=5), root=tmp_path
    )
    assert len(found.rows) == 0
    assert "`$.card`" in found.letters[0][1]


def test_protobuf_messages_become_rows(tmp_path: Path) -> None:
    file = descriptor_pb2.FileDescriptorProto(name="pay.proto", package="shop", syntax="proto3")
    message = file.message_type.add(name="Pay")
    kinds = {"at": 3, "card": 9, "class": 5, "desk": 9}  # int64, string, int32, string
    for number, (name, kind) in enumerate(kinds.items(), 1):
        message.field.add(name=name, number=number, type=kind, label=1)  # type: ignore[arg-type]
    (tmp_path / "pay.desc").write_bytes(descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Pay"))
    stream = Stream(PAY, topic="t", format="protobuf", schema="pay.desc", message="shop.Pay", epoch="s")
    value = made(**{"at": 1709294400, "card": "a", "class": 0, "desk": "x"}).SerializeToString()
    found = decoded(stream, value, b"\xff\xff\xff", root=tmp_path)
    assert found.rows.to_pylist() == [{"at": AT, "card": "a", "class": 0, "amount": None, "ok": None}]
    assert [(letter.offset, reason) for letter, reason in found.letters] == [
        (1, "it is not a Protobuf message of the type")
    ]
    assert Decoding(stream, tmp_path).missing == ("amount", "ok")


@settings(max_examples=examples(gate=30, deep=2_000))
@given(st.lists(st.binary(max_size=40) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes().map(str),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["at", "card", "class", "amount", "x"]), inner),
).map(lambda value: json.dumps(value).encode())))  # fmt: skip
def test_every_message_is_a_row_or_a_letter(values: list[bytes]) -> None:
    found = decoded(Stream(PAY, topic="t"), *values)
    assert len(found.rows) + len(found.letters) == len(values)
    assert all(reason for _, reason in found.letters)


def test_wrong_declarations_and_files_say_so(tmp_path: Path) -> None:
    wrong: list[dict[str, Any]] = [
        {"format": "xml"}, {"start": "now"}, {"epoch": "ns"}, {"topic": ""}, {"format": "avro"}, {"schema": "a"},
        {"format": "protobuf", "schema": "a"}, {"message": "a"}, {"batch_rows": 0}, {"every": "soon"},
    ]  # fmt: skip
    for given_ in wrong:
        with pytest.raises(Invalid):
            Stream(PAY, **{"topic": "t", **given_})
    stream = Stream(PAY, topic="t", format="avro", schema="v.avsc")
    with pytest.raises(NotFound, match=r"v\.avsc"):
        Decoding(stream, tmp_path)
    for content, said in (("{", "not an Avro schema"), ('"string"', "of a record")):
        (tmp_path / "v.avsc").write_text(content)
        with pytest.raises(Invalid, match=said):
            Decoding(stream, tmp_path)
    (tmp_path / "v.avsc").write_text(json.dumps({**V1, "fields": FIELDS[1:]}))
    with pytest.raises(Invalid, match=r"no field for .*'at'"):
        Decoding(stream, tmp_path)
