"""Images to the byte: archives, packages of Debian, wheels, locks, and what a store accepts."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given
from hypothesis import strategies as st

from kit import image_locks
from mainspring.core.errors import Corrupt, Invalid, Unavailable
from mainspring.deploy.images import building, debian, layout
from mainspring.deploy.images.layers import Entry, layer
from mainspring.deploy.images.sbom import bill
from mainspring.deploy.images.store import Store
from mainspring.deploy.images.wheels import SITE, own_entries, wheel_entries, wheels

NOON = 1_700_000_000
NAMES = st.lists(st.text("abcé.-", min_size=1, max_size=40).filter(lambda name: set(name) != {"."}), min_size=1)
FILES = st.dictionaries(NAMES.map(tuple), st.binary(max_size=40), max_size=8)
DAMAGED = pytest.mark.parametrize("content", [b"", b"!<arch>\n", b"!<arch>\n" + b"x" * 100, b"PK\x03\x04"])


def deb(name: str, files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    """Return a Debian package."""

    def packed(content: dict[str, bytes], linked: dict[str, str]) -> bytes:
        to = io.BytesIO()
        with tarfile.open(fileobj=to, mode="w:xz") as tar:
            for path, text in content.items():
                info = tarfile.TarInfo(f"./{path}")
                info.size, info.mode, info.uid, info.mtime = len(text), 0o4755, 1000, int(time.time())
                tar.addfile(info, io.BytesIO(text))
            for path, target in linked.items():
                info = tarfile.TarInfo(f"./{path}")
                info.type, info.linkname = tarfile.SYMTYPE, target
                tar.addfile(info)
        return to.getvalue()

    members = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": packed({"control": f"Package: {name}\nVersion: 1\n".encode()}, {}),
        "data.tar.xz": packed(files, links or {}),
    }
    found = b"!<arch>\n"
    for each, content in members.items():
        found += f"{each:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content
        found += b"\n" * (len(content) % 2)
    return found


def wheel(files: dict[str, bytes]) -> bytes:
    to = io.BytesIO()
    with zipfile.ZipFile(to, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return to.getvalue()


@given(FILES)
def test_a_layer_has_its_files_and_follows_from_them_alone(files: dict[tuple[str, ...], bytes]) -> None:
    taken = set[str]()
    entries = []
    for parts, content in files.items():
        path = "/".join(parts)
        inside = {"/".join(parts[:count]) for count in range(1, len(parts))}
        if not inside & {entry.path for entry in entries} and path not in taken:
            entries.append(Entry(path=path, content=content))
            taken |= {path, *inside}
    made = layer(entries, NOON)
    assert layer(list(reversed(entries)), NOON) == made
    assert hashlib.sha256(made.content).hexdigest() == made.digest
    with tarfile.open(fileobj=io.BytesIO(made.content)) as tar:
        members = tar.getmembers()
        assert {each.name: tar.extractfile(each).read() for each in members if each.isfile()} == {  # type: ignore[union-attr]
            entry.path: entry.content for entry in entries
        }
        assert {(each.uid, each.gid, each.mtime, each.uname) for each in members} <= {(0, 0, NOON, "")}
        seen = set[str]()
        for each in members:
            assert each.name.rpartition("/")[0] in {"", *seen}, "a folder is before its files"
            seen.add(each.name)


def test_who_builds_where_and_when_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def digest() -> str:
        content = building.Content(files={"a": "b"}, bundles=("ab" * 32,), env={"X": "1"}, extras=("redis",))
        made = building.recipe("localhost/shop:east", "amd64", content, {"User": "1"})
        layers = [("project", building._project(made, {"ab" * 32: {"model.onnx": b"x"}}))]
        _, manifest = building.image(made, [(name, layer(each, made.time_s)) for name, each in layers], "1")
        return hashlib.sha256(manifest).hexdigest()

    before = digest()
    umask = os.umask(0o077)
    try:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "5")
        time.tzset()
        assert digest() == before
    finally:
        os.umask(umask)
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../b", ".", "a//b", ""])
def test_a_path_out_of_the_image_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="no path in an image"):
        layer([Entry(path=path, content=b"")], NOON)


def test_two_files_at_one_path_are_refused() -> None:
    with pytest.raises(ValueError, match="two files are at a"):
        layer([Entry(path="a", content=b"1"), Entry(path="a", content=b"2")], NOON)


def test_a_debian_package_leaves_what_serving_needs() -> None:
    package = deb(
        "libx",
        {"usr/lib/libx.so.1": b"code", "usr/share/man/man1/x": b"", "usr/share/doc/libx/copyright": b"MIT",
         "usr/share/doc/libx/changelog.gz": b"", "usr/share/ca-certificates/mozilla/a.crt": b"A"},
        {"usr/lib/libx.so": "libx.so.1"},
    )  # fmt: skip
    found = {entry.path: entry for entry in debian.base_entries([package])}
    assert found["usr/lib/libx.so.1"].content == b"code"
    assert found["usr/lib/libx.so.1"].mode == 0o755, "without the bits that give rights"
    assert found["usr/lib/libx.so"].link == "libx.so.1"
    assert found["var/lib/dpkg/status.d/libx"].content == b"Package: libx\nVersion: 1\n"
    assert found["etc/ssl/certs/ca-certificates.crt"].content == b"A"
    assert "usr/share/doc/libx/copyright" in found
    assert not {"usr/share/man/man1/x", "usr/share/doc/libx/changelog.gz"} & set(found)
    layer(found.values(), NOON)


@DAMAGED
def test_damaged_packages_are_refused(content: bytes) -> None:
    with pytest.raises(Corrupt):
        list(debian.package_entries(content))
    with pytest.raises(Corrupt):
        list(wheel_entries(content))


def test_packages_that_hold_one_file_differently_are_refused() -> None:
    with pytest.raises(Corrupt, match="Two packages have the file usr/x"):
        debian.base_entries([deb("a", {"usr/x": b"1"}), deb("b", {"usr/x": b"2"})])


def test_a_wheel_leaves_what_serving_needs() -> None:
    made = wheel(
        {"x/__init__.py": b"1", "x/tests/test_x.py": b"", "x/__init__.pyi": b"", "x-1.data/purelib/y.py": b"2",
         "x-1.data/scripts/x": b"#!python", "x-1.dist-info/METADATA": b"Name: x\n"}
    )  # fmt: skip
    found = {entry.path.removeprefix(f"{SITE}/"): entry.content for entry in wheel_entries(made)}
    assert found == {"x/__init__.py": b"1", "y.py": b"2", "x-1.dist-info/METADATA": b"Name: x\n"}
    tools = wheel({"numpy/f2py/__init__.py": b"3"})
    assert ([*wheel_entries(tools)], len([*wheel_entries(tools, serves_only=False)])) == ([], 1)


def test_mainspring_in_an_image_has_no_path_or_cache_of_this_machine() -> None:
    found = {entry.path: entry.content or b"" for entry in own_entries()}
    assert f"{SITE}/mainspring/processes/contained.py" in found
    assert not [path for path in found if "__pycache__" in path or path.endswith(".pyc")]
    assert not [path for path, content in found.items() if str(Path(building.__file__).parent).encode() in content]


def test_locked_wheels_are_those_that_tests_run_with() -> None:
    locked = image_locks.requirements()
    for arch in ("amd64", "arm64"):
        found = wheels(arch, image_locks.EXTRAS)
        for each in found:
            version, hashes = locked[each.name]
            assert (each.version, each.sha256 in hashes) == (version, True), f"run tests/kit/image_locks.py: {each}"
        for extra in image_locks.EXTRAS:
            names = set(image_locks.needed(extra, image_locks.MACHINES[arch]))
            assert {each.name for each in found if extra in each.extras} == names, "run tests/kit/image_locks.py"
        assert "tzdata" in {each.name for each in wheels(arch, [])}, "features of a time zone are computed in an image"
    with pytest.raises(Invalid, match=r"extra 'torch'.*gateway"):
        wheels("amd64", ["torch"])


def test_the_base_is_the_same_for_both_architectures() -> None:
    lock = debian.base()
    assert [each.name for each in lock.amd64] == [each.name for each in lock.arm64] == sorted(image_locks.BASE)
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", lock.date)


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "mirror"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_store_takes_only_what_the_lock_names(mirror: str, tmp_path: Path) -> None:
    content = b"a package"
    digest = hashlib.sha256(content).hexdigest()
    package = debian.DebianPackage(name="x", version="1", path="debian/x+1.deb", sha256=digest, size=9)
    store = Store(tmp_path / "cache", mirror, "2026-01-02", f"{mirror}/archive")
    place = tmp_path / "mirror" / "debian" / "x+1.deb"
    place.parent.mkdir()
    place.write_bytes(b"another's")
    with pytest.raises(Corrupt, match="has changed the package"):
        store.packages([package])
    place.write_bytes(content)
    assert store.packages([package]) == [content]
    place.unlink()
    assert store.packages([package]) == [content], "it is kept"
    (tmp_path / "cache" / "files" / digest).write_bytes(b"damaged")
    with pytest.raises(Unavailable, match=r"x could not be fetched.*status 404"):
        store.packages([package])
    made = layer([Entry(path="a", content=b"1")], NOON)
    store.keep_layer("key", made)
    assert store.layer("key") == made
    (tmp_path / "cache" / "files" / made.digest).write_bytes(b"damaged")
    assert store.layer("key") is None


def test_a_bill_of_materials_is_valid_and_the_same_each_time() -> None:
    content = building.Content(files={}, bundles=("ab" * 32,), env={}, extras=())
    made = building.recipe("localhost/shop:east", "arm64", content, {})
    found = bill(made, "sha256:" + "cd" * 32)
    assert bill(made, "sha256:" + "cd" * 32) == found
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(found.decode()) is None
    named = {each["name"] for each in json.loads(found)["components"]}
    assert named > {"libc6", "onnxruntime", "mainspring"}


def test_a_changed_byte_of_an_image_is_seen_and_an_unfinished_one_is_none(tmp_path: Path) -> None:
    content = building.Content(files={"a": "b"}, bundles=(), env={}, extras=())
    made = building.recipe("localhost/shop:east", "amd64", content, {})
    layers = [("project", layer(building._project(made, {}), made.time_s))]
    configuration, manifest = building.image(made, layers, "1")
    layout.write(tmp_path / "east", made.name, configuration, [each for _, each in layers], manifest)
    assert layout.recipe(tmp_path / "east") == hashlib.sha256(made.encoded()).hexdigest()
    told = layout.summary(tmp_path / "east")
    assert told == f"sha256:{hashlib.sha256(manifest).hexdigest()}, 0.0 MB: project 0.0"
    blob = tmp_path / "east" / "blobs" / "sha256" / layers[0][1].digest
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    assert layout.recipe(tmp_path / "east") == ""
    (tmp_path / "east" / "index.json").unlink()
    assert layout.recipe(tmp_path / "east") is None
    assert not layout.is_other(tmp_path / "east")
