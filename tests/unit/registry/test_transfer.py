"""An export comes in as it went out, or is refused before anything of it is used."""

from __future__ import annotations

import io
import os
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from mainspring.core.errors import Corrupt, Denied, Invalid, NotFound
from mainspring.core.schema import DType
from mainspring.registry.bundles import seal
from mainspring.registry.model import Bundle, Graph, Input, Manifest, Node, TensorSpec
from mainspring.registry.transfer import Export, ExportedRun, read_export, write_export
from mainspring.security.signing import SigningKey

KEY, STRANGER = SigningKey(b"k" * 32), SigningKey(b"s" * 32)
TRUSTED = {"staging": KEY.public}
MODEL = b"\x08\x09\x3a\x00"  # ModelProto: ir_version 9, an empty graph


def manifest(**changes: object) -> Manifest:
    fields = {
        "model": "late", "task": "binary", "flavour": "onnx", "inputs": (Input("T.visits", DType.Int64),),
        "outputs": ("probability",), "run_id": "run1", "dataset_commit": "c1", "features_digest": "f1",
        "code_version": "abc", "created_at": 5, **changes,
    }  # fmt: skip
    return Manifest(**fields)  # type: ignore[arg-type]


MEMBER = seal(manifest(), {"model.onnx": MODEL, "golden.json": b"[1]"}, KEY)
GRAPH = seal(
    manifest(
        model="pair",
        flavour="graph",
        task="tensors",
        inputs=(),
        outputs=("y",),
        tensors=(TensorSpec("x", "FP32", (-1,)),),
        output_tensors=(TensorSpec("y", "FP32", (-1,)),),
        graph=Graph((Node(name="one", inputs={"x": "x"}, bundle=MEMBER.digest),), {"y": "one.y"}),
    ),
    {"golden.json": b"{}"},
    KEY,
)


def export(bundle: Bundle, *more: Bundle, **changes: object) -> Export:
    run = ExportedRun(id="run1", status="FINISHED", started_at=1, ended_at=2, params={"a": "1"}, metrics={}, tags={})
    fields = {
        "key": KEY.public.hex(), "model": bundle.manifest.model, "version": "3", "digest": bundle.digest,
        "bundles": (bundle.digest, *(each.digest for each in more)), "created_at": 5, "authors": ("local:ana",),
        "tags": {}, "run": run, **changes,
    }  # fmt: skip
    return Export(**fields)  # type: ignore[arg-type]


def written(path: Path, *bundles: Bundle, key: SigningKey = KEY, **changes: object) -> Path:
    with path.open("wb") as file:
        write_export(file, export(*bundles, **changes), bundles, key)
    return path


def test_what_goes_out_comes_in(tmp_path: Path) -> None:
    found, bundles, signer = read_export(written(tmp_path / "x", GRAPH, MEMBER), TRUSTED)
    assert (found, signer) == (export(GRAPH, MEMBER), "staging")
    assert bundles == {GRAPH.digest: GRAPH, MEMBER.digest: MEMBER}


def test_the_same_is_the_same_bytes(tmp_path: Path) -> None:
    assert written(tmp_path / "x", MEMBER).read_bytes() == written(tmp_path / "y", MEMBER).read_bytes()


def test_a_strangers_key_is_refused_and_named(tmp_path: Path) -> None:
    path = written(tmp_path / "x", MEMBER, key=STRANGER)
    with pytest.raises(Denied, match="not signed by a key") as refused:
        read_export(path, TRUSTED)
    assert KEY.public.hex() in refused.value.what  # what it says of itself, which nobody believes
    with pytest.raises(Denied):
        read_export(path, {})


def test_a_bundle_that_another_key_signed_is_refused_though_the_index_is_right(tmp_path: Path) -> None:
    other = seal(manifest(), {"model.onnx": MODEL}, STRANGER)
    with pytest.raises(Corrupt, match="signature"):
        read_export(written(tmp_path / "x", other), TRUSTED)


def test_one_changed_byte_anywhere_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path / "x", MEMBER)
    content = path.read_bytes()
    with tarfile.open(path) as tar:
        places = [(member.name, member.offset_data, member.size) for member in tar]
    for name, start, size in places:
        for position in {start, start + size // 2, start + size - 1}:
            changed = bytearray(content)
            changed[position] ^= 1
            path.write_bytes(bytes(changed))
            with pytest.raises((Corrupt, Denied)):
                read_export(path, TRUSTED)
            assert name


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_file_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    path = written(tmp_path / "x", GRAPH, MEMBER)
    content = path.read_bytes()
    end = content.rindex(b"ustar")  # behind the last header is the last file
    path.write_bytes(content[: int(end * share)])
    with pytest.raises((Corrupt, Denied)):
        read_export(path, TRUSTED)


def test_a_node_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match=f"lacks the bundle {MEMBER.digest[:12]}"):
        read_export(written(tmp_path / "x", GRAPH), TRUSTED)


def test_an_index_that_is_not_of_its_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match="is of 'late'"):
        read_export(written(tmp_path / "x", MEMBER, model="fraud"), TRUSTED)
    with pytest.raises(Corrupt, match="lacks its main bundle 0000"):
        read_export(written(tmp_path / "x", MEMBER, digest="0" * 64), TRUSTED)
    with pytest.raises(Corrupt, match="format 9"):
        read_export(written(tmp_path / "x", MEMBER, format=9), TRUSTED)


def _linked(member: tarfile.TarInfo) -> None:
    member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0


def _hard_linked(member: tarfile.TarInfo) -> None:
    member.type, member.linkname, member.size = tarfile.LNKTYPE, "export.json", 0


def _folder(member: tarfile.TarInfo) -> None:
    member.type, member.size = tarfile.DIRTYPE, 0


def _device(member: tarfile.TarInfo) -> None:
    member.type, member.size = tarfile.CHRTYPE, 0


def _sparse(member: tarfile.TarInfo) -> None:
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 50)}


def rewritten(path: Path, change: Callable[[tarfile.TarInfo], None]) -> None:
    """Write the file anew, its last member changed."""
    with tarfile.open(path) as tar:
        members = [(member, tar.extractfile(member)) for member in tar]
        contents = [(member, file.read() if file else b"") for member, file in members]
    change(contents[-1][0])
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for member, content in contents:
            tar.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("change", [_linked, _hard_linked, _folder, _device, _sparse])
def test_what_is_no_plain_file_is_refused(tmp_path: Path, change: Callable[[tarfile.TarInfo], None]) -> None:
    path = written(tmp_path / "x", MEMBER)
    rewritten(path, change)
    with pytest.raises(Corrupt):
        read_export(path, TRUSTED)


@pytest.mark.parametrize(
    "name",
    [
        "../evil", "/etc/cron.d/evil", "bundles/../../evil", f"bundles/{MEMBER.digest}/../x",
        f"bundles/{MEMBER.digest}/a/b", f"bundles/{'0' * 64}/model.onnx", f"bundles/{MEMBER.digest}/.hidden",
        "export.json", f"bundles/{MEMBER.digest}/manifest.json", f"./bundles/{MEMBER.digest}/signature", "x" * 300,
        f"bundles/{MEMBER.digest}/model.pkl",
    ],
)  # fmt: skip
def test_a_name_that_no_export_has_is_refused(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / "x", MEMBER)

    def rename(member: tarfile.TarInfo) -> None:
        member.name, member.pax_headers = name, {}

    rewritten(path, rename)
    with pytest.raises(Corrupt):
        read_export(path, TRUSTED)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["x"]


def test_what_is_no_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_export(tmp_path / "nothing", TRUSTED)
    for content in (b"", b"PK\x03\x04 a zip", b"\x00" * 10_240, msgspec.json.encode({}) * 1000):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(Corrupt):
            read_export(tmp_path / "x", TRUSTED)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_head_that_claims_gigabytes_is_not_read(tmp_path: Path, kind: bytes) -> None:
    """The file is sparse, so that it could be read: what was read before the refusal is what memory was taken."""
    path = tmp_path / "large.mainspring"
    member = tarfile.TarInfo("large")
    member.type, member.size = kind, 3 << 30
    with path.open("wb") as file:
        file.write(member.tobuf(tarfile.GNU_FORMAT))
        file.truncate(4 << 30)
    tracemalloc.start()
    try:
        with pytest.raises(Corrupt, match="head"):
            read_export(path, TRUSTED)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_member_that_claims_more_than_there_is_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "short.mainspring"
    member = tarfile.TarInfo("export.json")
    member.size = 60 << 20
    path.write_bytes(member.tobuf() + b"{}".ljust(512, b"\0"))
    with pytest.raises(Corrupt, match="ends within"):
        read_export(path, TRUSTED)


def test_a_pipe_a_device_and_a_link_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(written(tmp_path / "whole", MEMBER))
    for path in (tmp_path / "pipe", tmp_path / "link", Path("/dev/zero"), tmp_path):
        with pytest.raises(Invalid, match="regular file"):
            read_export(path, TRUSTED)
