"""Anchors in a bucket with S3 Object Lock: an object for each head, which nobody deletes or replaces for a time.

The first version of an object is the head. What is written over it, or a delete marker, is another version, and changes
nothing. Names count down, so that a listing begins with the newest. What others put there is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from mainspring.core.errors import Corrupt, Denied, Invalid, NotFound, Unavailable
from mainspring.core.object_store_url import Bucket
from mainspring.core.settings import Url
from mainspring.core.time import SECOND, Clock, parse_duration
from mainspring.security.tree_heads import open_head

_MOST = 10**12
_NAME = re.compile(r"[0-9]{12}")
_LONGEST = 64 << 10  # bytes of a head
_AT_ONCE, _READ_AHEAD = 8, 256
_TIMEOUT_S = 10
_TRIES = 5  # of a number, which another writer may take
_MODE = "COMPLIANCE"  # of which nobody shortens the time, the owner of the bucket included


class LockedAnchors:
    """`Anchors` at `s3://bucket/prefix?keep=365d`, with `endpoint` and `region` as addresses of bundles have them.

    Each head is locked for the time `keep`. Credentials come as with AWS's own tools. No connection is made yet.

    Args:
        public: Public key of this installation.

    Raises:
        Invalid: The address names no bucket, or has an unknown option.
    """

    def __init__(self, url: Url, wall: Clock, public: bytes) -> None:
        parts = urlsplit(url.text)
        given = dict(parse_qsl(parts.query))
        self._keep = timedelta(microseconds=parse_duration(given.pop("keep", "365d")))
        self._bucket = Bucket.parse(Url(parts._replace(query=urlencode(given)).geturl()))
        self._shown, self._wall, self._public = url.shown, wall, public
        self._prefix = f"{self._bucket.prefix}/" if self._bucket.prefix else ""

    def append(self, note: str, _proof: Sequence[bytes], /) -> None:
        with self._errors():
            self._check_locks()
            for _ in range(_TRIES):
                number = self._next_number()
                if number >= _MOST:
                    raise Corrupt(f"{self._shown} has a head of the last number.", fix="name another prefix.")
                if self._is_added(f"{self._prefix}{_MOST - 1 - number:012}", note):
                    return
        raise Unavailable(f"Others write to {self._shown} all the time.", fix="give each installation a prefix.")

    def read(self) -> Iterator[str]:
        with self._errors():
            versions = self._versions()
            yield from map(self._head, islice(versions, 1))
            with ThreadPoolExecutor(_AT_ONCE) as threads:
                while some := list(islice(versions, _READ_AHEAD)):
                    yield from threads.map(self._head, some)

    def _next_number(self) -> int:
        """Return the first number that is free after this installation's newest head."""
        taken: set[int] = set()
        number = -1
        for each in self._versions():
            if self._is_own(self._head(each)):
                number = each[0]
                break
            taken.add(each[0])
        number += 1
        while number in taken:
            number += 1
        return number

    def _is_own(self, note: str) -> bool:
        try:
            open_head(note, self._public)
        except Corrupt:
            return False
        return True

    def _check_locks(self) -> None:
        """Raise `Invalid` if the bucket has no Object Lock."""
        try:
            answer = self._s3.get_object_lock_configuration(Bucket=self._bucket.name)
            enabled = answer["ObjectLockConfiguration"].get("ObjectLockEnabled") == "Enabled"
        except ClientError as error:
            if error.response["Error"].get("Code") != "ObjectLockConfigurationNotFoundError":
                raise
            enabled = False
        if not enabled:
            raise Invalid(
                f"The bucket of {self._shown} has no Object Lock: whoever can write to it can delete heads.",
                fix="switch it on for the bucket, or name one that has it.",
            )

    def _is_added(self, name: str, note: str) -> bool:
        """Create an object; return whether its name was free."""
        until = datetime.fromtimestamp(self._wall.now() / SECOND, UTC) + self._keep
        try:
            made = self._s3.put_object(
                Bucket=self._bucket.name, Key=name, Body=note.encode(), IfNoneMatch="*", ContentType="text/plain",
                ObjectLockMode=_MODE, ObjectLockRetainUntilDate=until, ChecksumAlgorithm="SHA256",
            )  # fmt: skip
        except ClientError as error:
            if error.response["Error"].get("Code") in ("PreconditionFailed", "ConditionalRequestConflict"):
                return False
            raise
        kept = self._s3.head_object(Bucket=self._bucket.name, Key=name, VersionId=made["VersionId"])
        held = kept.get("ObjectLockRetainUntilDate")
        if kept.get("ObjectLockMode") != _MODE or held is None or held < until - timedelta(minutes=1):
            raise Invalid(f"{self._shown} did not lock a head.", fix="name a store that has Object Lock as S3 does.")
        return True

    def _versions(self) -> Iterator[tuple[int, str]]:
        """Yield the numbers of heads and the ids of their first versions, the newest head first."""
        pages = self._s3.get_paginator("list_object_versions").paginate(
            Bucket=self._bucket.name, Prefix=self._prefix, Delimiter="/"
        )
        name, first = "", ""
        for page in pages:
            for each in page.get("Versions", ()):  # of one name, the newest first
                if each["Key"] != name:
                    yield from self._numbered(name, first)
                name, first = each["Key"], each["VersionId"]
        yield from self._numbered(name, first)

    def _numbered(self, name: str, version: str) -> Iterator[tuple[int, str]]:
        last = name.removeprefix(self._prefix)
        if _NAME.fullmatch(last):
            yield _MOST - 1 - int(last), version

    def _head(self, version: tuple[int, str]) -> str:
        number, version_id = version
        name = f"{self._prefix}{_MOST - 1 - number:012}"
        answer = self._s3.get_object(Bucket=self._bucket.name, Key=name, VersionId=version_id)
        content: bytes = answer["Body"].read(_LONGEST)
        return content.decode(errors="replace")

    @cached_property
    def _s3(self) -> Any:
        config = Config(
            connect_timeout=_TIMEOUT_S,
            read_timeout=_TIMEOUT_S,
            retries={"max_attempts": 2, "mode": "standard"},
            max_pool_connections=_AT_ONCE,
            s3={"addressing_style": "path"} if self._bucket.endpoint else {},
        )
        return boto3.session.Session().client(
            "s3", region_name=self._bucket.region or None, endpoint_url=self._bucket.endpoint or None, config=config
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Translate errors inside the block into ours."""
        try:
            yield
        except ClientError as error:
            code, said = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
            what = f"{self._shown} refused: {code}: {said[:300]}"
            if code == "NoSuchBucket":
                fix = "create the bucket with Object Lock, or correct `audit_anchors` in the profile."
                raise NotFound(f"There is no bucket at {self._shown}.", fix=fix) from error
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in (401, 403):
                fix = "allow s3:PutObject, s3:PutObjectRetention, s3:GetObjectVersion, s3:GetObjectRetention, "
                fix += "s3:ListBucketVersions and s3:GetBucketObjectLockConfiguration."
                raise Denied(what, authenticated=True, fix=fix) from error
            raise Unavailable(what, fix="see the state of the bucket.") from error
        except BotoCoreError as error:
            raise Unavailable(f"{self._shown} did not answer: {error}.", fix="make it reachable.") from error
