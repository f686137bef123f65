"""Sources that take signed files alone: what is unsigned or changed is quarantined, counted and named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kit.landing import Landing
from mainspring.core.errors import Invalid
from mainspring.core.schema import Int64
from mainspring.data import signed_files
from mainspring.data.model import Source
from mainspring.data.signed_files import sign_file, statement
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


def test_of_a_file_that_is_swapped_after_its_signature_was_checked_the_signed_rows_land(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []

    def checked(*of: Any) -> bool:
        signs = signs_really(*of)
        file.write_text("at,n\n2013-07-01T00:00:00Z,8\n2013-07-02T00:00:00Z,9\n")
        modes.extend(each.stat().st_mode & 0o777 for each in scratch.rglob("facts.csv"))
        return signs

    signs_really, scratch = signed_files._signs, tmp_path / "scratch"
    (scratch / "facts").mkdir(parents=True)
    (scratch / "facts" / "of a killed process").touch()
    monkeypatch.setattr(signed_files, "_signs", checked)
    sign_file(file, "facts", KEY)
    there = Landing(facts(), load_rows=1, scratch=scratch)
    assert there.ingest(file).rows == 2
    assert [row["n"] for row in there.landed()] == [1, 2]
    assert modes == [0o600]
    assert list((scratch / "facts").iterdir()) == []


def test_a_key_that_is_none_is_refused_where_it_is_declared() -> None:
    with pytest.raises(Invalid, match="no public key"):
        Source("facts", schema={"n": Int64}, event_time="at", signed_by=["abc"])
