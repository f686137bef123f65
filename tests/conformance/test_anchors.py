"""Places of the audit log's heads, against their shared suite."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import ClientError

from kit.object_store import ENVIRONMENT
from mainspring.core.errors import Corrupt, Invalid, NotFound, Unavailable
from mainspring.core.settings import Url
from mainspring.core.time import SystemClock
from mainspring.security.adapters.anchors_file import FileAnchors
from mainspring.security.adapters.anchors_s3 import LockedAnchors
from mainspring.security.conformance import ANCHORED_BY, AnchorsConformance, heads_of_a_log
from mainspring.security.ports import Anchors


class TestFileAnchors(AnchorsConformance):
    @pytest.fixture
    def anchors(self, tmp_path: Path) -> Anchors:
        return FileAnchors(tmp_path / "elsewhere" / "anchors.jsonl")

    @pytest.fixture
    def again(self, tmp_path: Path) -> Callable[[], Anchors]:
        return lambda: FileAnchors(tmp_path / "elsewhere" / "anchors.jsonl")

    def test_an_unfinished_line_is_none_and_a_damaged_one_is_told(self, anchors: Anchors, tmp_path: Path) -> None:
        anchors.append("first", [])
        path = tmp_path / "elsewhere" / "anchors.jsonl"
        whole = path.read_bytes()
        path.write_bytes(whole + whole[:-3])
        assert list(anchors.read()) == ["first"]
        anchors.append("second", [])
        assert list(anchors.read()) == ["second", "first"]
        assert path.stat().st_mode & 0o777 == 0o600
        path.write_bytes(b"x\n" + whole)
        with pytest.raises(Corrupt, match="damaged"):
            list(anchors.read())


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return boto3.session.Session().client("s3", region_name="us-east-1", endpoint_url=s3_server)


@pytest.fixture
def url(s3: Any, s3_server: str) -> Url:
    bucket = f"heads-{uuid4().hex[:12]}"
    s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    return Url(f"s3://{bucket}/courier?endpoint={s3_server}&region=us-east-1&keep=30d")


@pytest.fixture
def locked(url: Url) -> Anchors:
    return LockedAnchors(url, SystemClock(), ANCHORED_BY.public)


class TestLockedAnchors(AnchorsConformance):
    @pytest.fixture
    def anchors(self, locked: Anchors) -> Anchors:
        return locked

    @pytest.fixture
    def again(self, url: Url) -> Callable[[], Anchors]:
        return lambda: LockedAnchors(url, SystemClock(), ANCHORED_BY.public)


def test_neither_deletes_nor_writes_over_change_a_head(locked: Anchors, url: Url, s3: Any) -> None:
    first, second, third = (note for note, _ in heads_of_a_log(1, 9, 12))
    for note in (first, second):
        locked.append(note, [])
    bucket = urlsplit(url.text).netloc
    [newest, oldest] = s3.list_object_versions(Bucket=bucket)["Versions"]
    for each in (newest, oldest):
        s3.delete_object(Bucket=bucket, Key=each["Key"])
        s3.put_object(Bucket=bucket, Key=each["Key"], Body=b"another")
        with pytest.raises(ClientError, match="Access Denied"):
            s3.delete_object(Bucket=bucket, Key=each["Key"], VersionId=each["VersionId"])
    s3.delete_object(Bucket=bucket, Key=newest["Key"])
    s3.put_object(Bucket=bucket, Key="courier/0-foreign", Body=b"x")
    locked.append(third, [])
    assert list(locked.read()) == [third, second, first]


def test_what_is_no_head_is_passed_over(locked: Anchors, url: Url, s3: Any) -> None:
    first, second = (note for note, _ in heads_of_a_log(1, 9))
    locked.append(first, [])
    for name in ("000000000000", "999999999998"):  # the last number, and the next one
        s3.put_object(Bucket=urlsplit(url.text).netloc, Key=f"courier/{name}", Body=b"\xff no head")
    locked.append(second, [])
    assert [each for each in locked.read() if "no head" not in each] == [second, first]
    assert len(list(locked.read())) == 4


def test_a_bucket_without_locks_or_none_is_refused(s3: Any, url: Url) -> None:
    bucket = urlsplit(url.text).netloc
    s3.create_bucket(Bucket=f"{bucket}-plain")
    with pytest.raises(Invalid, match="no Object Lock"):
        LockedAnchors(Url(url.text.replace(bucket, f"{bucket}-plain")), SystemClock(), ANCHORED_BY.public).append(
            "head", []
        )
    with pytest.raises(NotFound, match="no bucket"):
        list(LockedAnchors(Url(url.text.replace(bucket, f"{bucket}-none")), SystemClock(), ANCHORED_BY.public).read())
    with pytest.raises(Unavailable, match="did not answer"):
        list(LockedAnchors(Url("s3://heads/x?endpoint=http://127.0.0.1:1"), SystemClock(), ANCHORED_BY.public).read())
    with pytest.raises(Invalid, match="option"):
        LockedAnchors(Url("s3://heads/x?mode=GOVERNANCE"), SystemClock(), ANCHORED_BY.public)


def test_a_writer_that_comes_second_takes_the_next_number(locked: Anchors, url: Url) -> None:
    class Late(LockedAnchors):
        """Lists the bucket before another writes to it."""

        listings = 0

        def _versions(self) -> Iterator[tuple[int, str]]:
            self.listings += 1
            return super()._versions() if self.listings > 1 else iter(())

    first, second = (note for note, _ in heads_of_a_log(1, 9))
    locked.append(first, [])
    Late(url, SystemClock(), ANCHORED_BY.public).append(second, [])
    assert list(locked.read()) == [second, first]
