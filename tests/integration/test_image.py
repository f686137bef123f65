"""An image of a project: built here, run by podman, answering as the gateway of this machine does."""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from kit.containers import HARDENED, Podman, podman
from kit.depth import deep
from kit.fleet import BODY, INFER, Fleet, Reply, answer_of
from kit.servers import PASSWORD, PostgresServer
from kit.waiting import free_port, wait_until
from mainspring.core.environment import SAGEMAKER
from mainspring.core.version import __version__
from mainspring.deploy.adapters.targets.compose import ComposeOptions, ComposeTarget
from mainspring.deploy.adapters.targets.image import ImageOptions, ImageTarget, probe
from mainspring.deploy.images import building, debian, layout
from mainspring.deploy.images.store import Store
from mainspring.deploy.targets.model import Deployment, Piece, Service
from mainspring.ledger.adapters.unread import unread
from mainspring.project.image_content import ProjectParts

IDS = re.compile(rb'"prediction_ids":\[[^]]*]')  # they are new for each request
CACHE = Path(ImageOptions().cache).expanduser()
# Leaves a process whose parent ends before it, and finds those that ended and were not collected.
ORPHAN = "import os, time; os.fork() and os._exit(0); os.close(0); os.close(1); os.close(2); time.sleep(0.1)"
ZOMBIES = "import glob; print(*(p for p in glob.glob('/proc/[0-9]*/stat') if open(p).read().split()[2] == 'Z'))"
UNCHECKED = b"\x01\0\0\0"  # flags of compiled Python that no source is compared with
ASKED = {"Mainspring-Request-Id": "01K00000000000000000000000"}


def deployment(**changes: object) -> Deployment:
    usual = {"project": "fleet", "target": "east", "profile": "local", "port": free_port(),
             "services": (Service(endpoint="late-arrival", model="late-arrival"),)}  # fmt: skip
    return Deployment(**{**usual, **changes})  # type: ignore[arg-type]


def target(fleet: Fleet) -> ImageTarget:
    return ImageTarget(ImageOptions(), fleet.root, ProjectParts(fleet.project, "local"))


@pytest.fixture(scope="module")
def containers() -> Iterator[Podman]:
    with podman() as found:
        yield found


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    fleet = Fleet(tmp_path_factory.mktemp("image") / "project", workers=1)
    fleet.publish("1")
    return fleet


def pepper_of(fleet: Fleet, folder: Path) -> str:
    """Return the option that gives the pepper as a file of the container's user."""
    given = folder / "pepper"
    given.write_bytes(fleet.project.pepper)
    given.chmod(0o400)
    os.chown(given, 10001, 10001)
    return f"--volume={given}:/run/secrets/mainspring-pepper:ro"


def owned(folder: Path) -> Path:
    """Make a folder that is the container's user's."""
    folder.mkdir(mode=0o700)
    os.chown(folder, 10001, 10001)
    return folder


def digests(piece: Piece) -> list[str]:
    return list(msgspec.json.decode(piece.content, type=building.Recipe).bundles)


def ask(fleet: Fleet, port: int, key: str | None = None, body: bytes = BODY, path: str = INFER) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        token = {"Authorization": f"Bearer {fleet.key if key is None else key}"}
        connection.request(
            "POST" if path == INFER else "GET", path, body if path == INFER else None, {**token, **ASKED}
        )
        reply = connection.getresponse()
        return Reply(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())
    finally:
        connection.close()


def up(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.fixture(scope="module")
def built(fleet: Fleet, containers: Podman) -> tuple[Deployment, str]:
    """Build an image, load it, and return its deployment and its id."""
    image, made = target(fleet), deployment()
    [piece] = image.render(made)
    image.make(piece)
    return made, containers.load(image.path / "east")


def test_an_image_answers_as_the_gateway_here(
    fleet: Fleet, containers: Podman, built: tuple[Deployment, str], tmp_path: Path
) -> None:
    image, (made, id) = target(fleet), built
    [piece] = image.render(made)
    data = owned(tmp_path / "data")
    containers("secret", "create", "pepper", str(fleet.project.settings.state / "keys" / "pepper"))
    options = ["--memory", "700m", "--cpus", "1", f"--volume={data}:/var/lib/mainspring",
               "--secret", "pepper,target=/run/pepper,uid=10001,mode=0400",
               "--env", "MAINSPRING_PEPPER_FILE=/run/pepper"]  # fmt: skip
    with fleet.up(), containers.running(id, *options) as container:
        wait_until(lambda: up(made.port), "the container")
        for body in (b"{", json.dumps({"inputs": []}).encode(), *[BODY] * 3):
            here, there = ask(fleet, fleet.port, body=body), ask(fleet, made.port, body=body)
            assert (here.status, IDS.sub(b"", here.body)) == (there.status, IDS.sub(b"", there.body))
        assert (here.status, json.loads(here.body)["outputs"][0]["data"]) == (200, pytest.approx(answer_of("1")))
        assert {ask(fleet, port, key="msk_unknown").status for port in (fleet.port, made.port)} == {401}
        inside = "import os; print(os.getuid(), os.access('/srv/mainspring', os.W_OK), os.access('/etc', os.W_OK))"
        assert containers("exec", container, "/usr/bin/python3", "-c", inside).stdout.split() == [
            "10001",
            "False",
            "False",
        ]
        containers("exec", container, "/usr/bin/python3", "-c", ORPHAN)
        wait_until(
            lambda: not containers("exec", container, "/usr/bin/python3", "-c", ZOMBIES).stdout.split(), "the end"
        )
        assert containers("stop", "--time", "20", container).returncode == 0
        assert containers("inspect", "--format", "{{.State.ExitCode}}", container).stdout.strip() == "0"
        assert "gateway ended" in containers("logs", container).stderr
    assert len([each for each in unread(data / "ledger") if each.endpoint == "late-arrival"]) == 3 * 2, (
        "nothing is lost"
    )

    done = containers("run", "--rm", *HARDENED, id, check=False)
    assert done.returncode == 1
    assert "mainspring-pepper cannot be read" in done.stderr
    [again] = image.render(made)
    assert again == piece
    assert hashlib.sha256(fleet.project.pepper).hexdigest().encode() not in piece.content
    secrets = (fleet.project.pepper, fleet.project.pepper.hex().encode(), fleet.key.rpartition("_")[2].encode())
    for _, content in building.build(msgspec.json.decode(piece.content, type=building.Recipe),
                                     ProjectParts(fleet.project, "local").bundles(digests(piece)),
                                     Store(CACHE, date=debian.base().date)):  # fmt: skip
        plain = gzip.decompress(content.content)
        assert not [each for each in secrets if each in plain], "no layer has a secret"
        with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
            compiled = [each for each in tar if each.name.endswith(".pyc")]
            wrong = [each.name for each in compiled if tar.extractfile(each).read(8)[4:] != UNCHECKED]  # type: ignore[union-attr]
            assert not wrong, "an import has written over what was compiled"
    signed = json.loads((image.path / "east.signature.json").read_bytes())
    payload, signature = (base64.b64decode(signed[name]) for name in ("payload", "signature"))
    Ed25519PublicKey.from_public_bytes(fleet.project.signing_key.public).verify(signature, payload)
    assert json.loads(payload)["critical"]["image"]["docker-manifest-digest"] == layout.image_digest(
        image.path / "east"
    )


def test_a_file_of_compose_runs_it(
    fleet: Fleet, containers: Podman, built: tuple[Deployment, str], tmp_path: Path
) -> None:
    made, id = built
    made = replace(made, image="localhost/fleet:east", secrets=("NOTE",), env={"MAINSPRING_GATEWAY_WORKERS": "1"})
    containers("tag", id, made.image)
    composed = ComposeTarget(ComposeOptions(folder="compose"), tmp_path)
    [piece] = composed.render(made)
    composed.make(piece)
    pepper_of(fleet, composed.path)
    (composed.path / "pepper").rename(composed.path / "mainspring-pepper")
    (composed.path / "fleet.env").write_text("NOTE=x\n")
    (composed.path / "host.yaml").write_text('{"services": {"gateway": {"network_mode": "host"}}}')
    files = ["-f", str(composed.path / "compose.yaml"), "-f", str(composed.path / "host.yaml")]
    containers.compose(*files, "up", "--detach")
    try:
        wait_until(lambda: up(made.port), "the container")
        assert json.loads(ask(fleet, made.port).body)["outputs"][0]["data"] == pytest.approx(answer_of("1"))
        [id] = containers("ps", "--quiet", "--no-trunc").stdout.split()
        [seen] = json.loads(containers("inspect", id).stdout)
        assert seen["HostConfig"]["ReadonlyRootfs"]
        assert (seen["EffectiveCaps"], seen["Config"]["User"]) == (None, "10001:10001")
        assert containers("exec", id, *probe(made.port)).returncode == 0
    finally:
        containers.compose(*files, "down", "--volumes", "--timeout", "20")


@deep
def test_an_image_built_from_nothing_elsewhere_has_the_same_digest(fleet: Fleet, tmp_path: Path) -> None:
    image = target(fleet)
    [piece] = image.render(deployment(port=8080))
    image.make(piece)
    made = msgspec.json.decode(piece.content, type=building.Recipe)
    bundles = ProjectParts(fleet.project, "local").bundles(digests(piece))
    again = building.build(made, bundles, Store(tmp_path / "cache", date=made.date))
    _, manifest = building.image(made, again, __version__)
    assert f"sha256:{hashlib.sha256(manifest).hexdigest()}" == layout.image_digest(image.path / "east")


@deep
def test_an_image_follows_a_catalog_on_a_server(
    containers: Podman, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    fleet = Fleet(tmp_path / "project", workers=1, settings={"catalog": postgres_server.fresh().text})
    fleet.publish("1")
    image, made = target(fleet), deployment()
    [piece] = image.render(made)
    assert PASSWORD.encode() not in piece.content
    image.make(piece)
    id = containers.load(image.path / "east")
    data = owned(tmp_path / "data")
    shutil.copytree(fleet.project.settings.blobs.path, data / "bundles")
    subprocess.run(["chown", "-R", "10001:10001", str(data)], check=True)
    options = [pepper_of(fleet, tmp_path), f"--volume={data}:/var/lib/mainspring",
               f"--env=MAINSPRING_CATALOG={fleet.project.settings.catalog.text}"]  # fmt: skip
    with containers.running(id, *options):
        wait_until(lambda: up(made.port), "the container")
        assert json.loads(ask(fleet, made.port).body)["model_version"] == "1"
        shutil.copytree(copied := fleet.project.settings.blobs.path, data / "bundles", dirs_exist_ok=True)
        fleet.publish("2")
        shutil.copytree(copied, data / "bundles", dirs_exist_ok=True)
        subprocess.run(["chown", "-R", "10001:10001", str(data)], check=True)
        wait_until(lambda: json.loads(ask(fleet, made.port).body).get("model_version") == "2", "the next version")
    fleet.project.close()


@deep
def test_an_image_answers_sagemaker_without_any_secret(
    fleet: Fleet, containers: Podman, built: tuple[Deployment, str]
) -> None:
    made, id = built
    options = [f"--env={SAGEMAKER}=late-arrival", f"--env=SAGEMAKER_BIND_TO_PORT={made.port}"]
    with containers.running(id, *options, "--tmpfs=/var/lib/mainspring:mode=1777", command=["serve"]) as container:
        connection = http.client.HTTPConnection("127.0.0.1", made.port, timeout=30)
        wait_until(lambda: up(made.port), "the container")
        for method, path in (("GET", "/ping"), ("POST", "/invocations")):
            connection.request(method, path, BODY if method == "POST" else None, {"Host": "model.aws.local:8080"})
            reply = connection.getresponse()
            body = json.loads(reply.read())
            assert reply.status == 200
        assert body["outputs"][0]["data"] == pytest.approx(answer_of("1"))
        assert ask(fleet, made.port).status == 401
        connection.close()
        assert containers("stop", "--time", "20", container).returncode == 0
    refused = containers("run", "--rm", *HARDENED, options[0], id, check=False)
    assert refused.returncode == 1
    assert "not started as SageMaker does it" in refused.stderr
