"""Sources that take signed files alone: what is unsigned or changed is quarantined, counted and named."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.landing import Landing
from mainspring.core.errors import Corrupt, Invalid
from mainspring.core.schema import Int64
from mainspring.data.model import Source
from mainspring.data.readers import open_input
from mainspring.data.signed_files import sign_file, signed_rows, statement
from mainspring.security.signing import SigningKey, verify

KEY, OTHER = SigningKey(b"k" * 32), SigningKey(b"o" * 32)
CSV = "at,n\n2013-07-01T00:00:00Z,1\n2013-07-02T00:00:00Z,2\n"


def facts(name: str = "facts") -> Source:
    return Source(name, schema={"n": Int64}, event_time="at", signed_by=KEY.public.hex())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "facts.csv"
    path.write_text(CSV)
    return path


def test_a_signed_file_is_taken(file: Path) -> None:
    signature = sign_file(file, "facts", KEY)
    there = Landing(facts())
    report = there.ingest(file)
    assert (report.rows, report.quarantined) == (2, 0)
    assert there.ingest(file).already == 2
    # What a partner has to sign, without this package.
    assert statement("facts", "ab") == b"mainspring data\nfacts\nsha256:ab\n"
    verify(KEY.public, bytes.fromhex(signature.read_text()), statement("facts", _sha256(file)))


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("wrong", ["none", "other key", "other source", "changed", "no hexadecimal", "cut"])
def test_what_is_not_signed_is_quarantined_and_taken_once_it_is(file: Path, wrong: str) -> None:
    if wrong != "none":
        signature = sign_file(file, "others" if wrong == "other source" else "facts", OTHER if "key" in wrong else KEY)
        if wrong == "changed":
            file.write_text(CSV.replace(",2", ",3"))
        elif wrong == "no hexadecimal":
            signature.write_text("zz")
        elif wrong == "cut":
            signature.write_text(signature.read_text()[:64])
    there = Landing(facts())
    report = there.ingest(file)
    [(reason, count)] = report.reasons.items()
    assert (report.rows, report.quarantined, count) == (0, 2, 2)
    assert "facts.csv" in reason
    assert reason in report.warnings[0]
    assert {row["_reason"] for row in there.quarantined()} == {reason}
    assert there.ingest(file).already == 2
    sign_file(file, "facts", KEY)
    assert there.ingest(file).rows == 2
    assert there.ingest(file, batch_id="monday").rows == 2


def test_rows_of_no_file_are_quarantined() -> None:
    there = Landing(facts())
    report = there.ingest([{"at": "2013-07-01T00:00:00Z", "n": 1}], batch_id="monday")
    assert report.reasons == {"the rows are of no signed file": 1}


def test_a_file_that_is_changed_while_it_is_read_lands_nothing(file: Path) -> None:
    sign_file(file, "facts", KEY)
    opened, why = signed_rows(open_input(file, facts()), file, facts())
    assert not why
    pieces = iter(opened.pieces)
    next(pieces)
    file.write_text(CSV + "2013-07-03T00:00:00Z,9\n")
    with pytest.raises(Corrupt, match="changed while it was read"):
        list(pieces)


def test_a_key_that_is_none_is_refused_where_it_is_declared() -> None:
    with pytest.raises(Invalid, match="no public key"):
        Source("facts", schema={"n": Int64}, event_time="at", signed_by=["abc"])
