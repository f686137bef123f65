"""Processes in AWS as the module of Terraform starts them, with the rights that it gives: these suffice, and are few.

Moto's server checks each request against the policies of the role whose credentials it has: actions and, for S3,
resources. It knows no resources of KMS, no key of a service behind S3 (those statements are left out here), and for the
deletion of several objects it asks for the right to the bucket, where S3 asks for that to each object.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pytest

from kit.depth import deep
from kit.fleet import BODY, INFER, Fleet, answer_of
from kit.object_store import ENVIRONMENT, SERVER
from kit.servers import PostgresServer
from kit.terraform import Module
from kit.waiting import free_port, wait_until
from mainspring.core.errors import Denied, MainspringError, NotFound
from mainspring.core.settings import Url
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.deltaobjects import open_object_lake
from mainspring.deploy.adapters.targets.terraform import TerraformTarget
from mainspring.deploy.targets.conformance import deployment
from mainspring.deploy.terraform.module import VALUES
from mainspring.deploy.terraform.options import TerraformOptions
from mainspring.deploy.terraform.statements import policies, statements
from mainspring.ledger.conformance import prediction
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from mainspring.registry.adapters.objects import open_objects
from mainspring.security.adapters.key_awskms import AwsKmsKeys
from mainspring.training.loop.objects import ObjectShelf

BUCKET, REGION, ACCOUNT = "shop-data", "eu-central-1", "123456789012"
DIGEST = "ab" * 32
ORDERS = pa.table({"order": np.arange(3), "price": np.ones(3)})
As = Callable[[str], None]


class Cloud:
    """A server of AWS's services, with a bucket, a master key, and the roles of the module."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        given = {
            "endpoint_url": endpoint,
            "region_name": REGION,
            "aws_access_key_id": "a",
            "aws_secret_access_key": "b",
        }
        boto3.client("s3", **given).create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        self.key = boto3.client("kms", **given).create_key()["KeyMetadata"]
        iam, sts = boto3.client("iam", **given), boto3.client("sts", **given)
        trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}}
        self.roles: dict[str, dict[str, str]] = {}
        for name in ("gateway", "worker"):
            role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))["Role"]
            iam.put_role_policy(RoleName=name, PolicyName=name, PolicyDocument=json.dumps(self.policy(name)))
            found = sts.assume_role(RoleArn=role["Arn"], RoleSessionName=name)["Credentials"]
            self.roles[name] = {
                "AWS_ACCESS_KEY_ID": found["AccessKeyId"],
                "AWS_SECRET_ACCESS_KEY": found["SecretAccessKey"],
                "AWS_SESSION_TOKEN": found["SessionToken"],
            }
        checked = urllib.request.Request(
            f"{endpoint}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"}
        )
        with urllib.request.urlopen(checked, timeout=30):
            pass  # from now on requests are checked

    def policy(self, name: str) -> dict[str, Any]:
        def resource(text: str) -> str:
            bucket = text.replace("${aws_s3_bucket.data.arn}", f"arn:aws:s3:::{BUCKET}")
            return bucket.replace("${aws_kms_key.master.arn}", "*")

        given = []
        for each in policies(statements("aws"))[name]:
            resources = [resource(one) for one in each.resources if not one.startswith("[for")]
            if "s3:DeleteObject" in each.actions:
                resources.append(f"arn:aws:s3:::{BUCKET}")
            if not each.conditions:
                given.append({"Effect": each.effect, "Action": list(each.actions), "Resource": resources})
        return {"Version": "2012-10-17", "Statement": given}

    def place(self, prefix: str) -> str:
        return f"s3://{BUCKET}/{prefix}?endpoint={self.endpoint}&region={REGION}"


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, **ENVIRONMENT, "INITIAL_NO_AUTH_ACTION_COUNT": "1000"},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield Cloud(f"http://{process.stdout.readline().decode().strip()}")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def act_as(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> As:
    def become(role: str) -> None:
        for name, value in {"AWS_EC2_METADATA_DISABLED": "true", **cloud.roles[role]}.items():
            monkeypatch.setenv(name, value)

    return become


def project(cloud: Cloud, root: Path) -> Project:
    (root / "small.py").write_text("")
    stores = "".join(f'{name} = "{cloud.place(name)}"\n' for name in ("lake", "blobs"))
    (root / "mainspring.toml").write_text(f'name = "small"\nmodules = ["small"]\n[profiles.local]\n{stores}')
    return open_project(load_settings(root, environment={}))


def add(lake: DeltaLake, table: str) -> None:
    lake.append(table, ORDERS.to_batches(), ORDERS.schema, key="first")


def test_a_gateway_moves_its_predictions_and_reads_bundles(cloud: Cloud, act_as: As, tmp_path: Path) -> None:
    act_as("worker")
    blobs = open_objects(Url(cloud.place("blobs")))
    blobs.put(DIGEST, {"model.onnx": b"model"})
    act_as("gateway")
    serving = project(cloud, tmp_path)
    assert serving.blobs.get(DIGEST) == {"model.onnx": b"model"}
    with pytest.raises(NotFound):
        serving.blobs.get("cd" * 32)
    for number in (1, 2):
        serving.prediction_log.append([prediction(number)])
        assert serving.predictions.compact() == 1
    assert [each.id for each in serving.predictions.recent("late", 10)] == ["p2", "p1"]
    serving.close()


def test_a_gateway_has_no_other_right(cloud: Cloud, act_as: As, tmp_path: Path) -> None:
    act_as("worker")
    add(open_object_lake(Url(cloud.place("lake")), tmp_path / "worker"), "orders")
    act_as("gateway")
    blobs, lake = open_objects(Url(cloud.place("blobs"))), open_object_lake(Url(cloud.place("lake")), tmp_path / "own")
    with pytest.raises(Denied):
        blobs.put("ef" * 32, {"model.onnx": b"another"})
    for refused in (lambda: blobs.delete(DIGEST), lambda: add(lake, "orders"), lambda: lake.describe("orders")):
        with pytest.raises(MainspringError, match=r"refuses|AccessDenied|403"):
            refused()
    shelf = ObjectShelf(cloud.place("checkpoints"), "abc")
    with pytest.raises(Denied), shelf.hold():
        pass


def test_a_worker_keeps_tables_bundles_and_checkpoints(cloud: Cloud, act_as: As, tmp_path: Path) -> None:
    act_as("worker")
    lake = open_object_lake(Url(cloud.place("lake")), tmp_path)
    add(lake, "people")
    assert lake.describe("people").rows == 3
    place = lake.place
    place.remove("people", place.lying("people"))
    assert not place.lying("people")
    blobs = open_objects(Url(cloud.place("blobs")))
    blobs.put("12" * 32, {"model.onnx": b"model"})
    assert blobs.delete("12" * 32)
    shelf = ObjectShelf(cloud.place("checkpoints"), "abc")
    with shelf.hold():
        shelf.put("000000000001.safetensors", lambda path: path.write_bytes(b"weights"), last=True)
        assert shelf.local("000000000001.safetensors").read_bytes() == b"weights"
        shelf.remove("000000000001.safetensors")
    assert "000000000001.safetensors" not in shelf.names()


@pytest.mark.parametrize("role", ["gateway", "worker"])
def test_data_keys_are_wrapped_and_the_key_itself_is_left_alone(cloud: Cloud, act_as: As, role: str) -> None:
    act_as(role)
    keys = AwsKmsKeys(Url(f"awskms://{REGION}/{cloud.key['KeyId']}?endpoint={cloud.endpoint}"))
    [wrapped] = keys.wrap([b"k" * 32], ["log"])
    assert keys.unwrap([wrapped], ["log"]) == [b"k" * 32]
    assert keys.version() == cloud.key["Arn"]
    session = boto3.Session()  # boto3's own keeps the credentials of this process's first call
    kms = session.client("kms", endpoint_url=cloud.endpoint, region_name=REGION)
    with pytest.raises(Exception, match="AccessDenied"):
        kms.disable_key(KeyId=cloud.key["KeyId"])


class Task:
    """Containers of a task of ECS: the module's commands, variables and secrets, on this machine.

    Addresses of services have the server's endpoint in addition.
    """

    def __init__(self, cloud: Cloud, fleet: Fleet, catalog: str, folder: Path, role: str) -> None:
        certificate = f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate/0f0f0f0f"
        options = TerraformOptions(
            certificate=certificate, hosts=["models.example.org"], project_folder=str(fleet.root)
        )
        target = TerraformTarget(options, folder, 10, (), fleet.project.signing_key.sign)
        image = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/fleet@sha256:{'0f' * 32}"
        place = deployment(project="fleet", profile="local", region=REGION, image=image, port=fleet.port, env={})
        texts = {each.name: each.content.decode() for each in target.render(place)}
        self.values = json.loads(texts[VALUES])
        self.module = Module({name: each for name, each in texts.items() if name.endswith(".tf")}, self.values)
        self.role, self.state, self.port = role, folder / role, free_port() if role == "worker" else fleet.port
        self.state.mkdir()
        known = {"local.state": str(self.state), "local.bucket": f"s3://{BUCKET}", "var.region": REGION,
                 "aws_kms_key.master.key_id": cloud.key["KeyId"]}  # fmt: skip
        environment = {name: _filled(value, known) for name, value in self._local("environment").items()}
        for name in ("LAKE", "BLOBS", "CHECKPOINTS"):
            environment[f"MAINSPRING_{name}"] += f"&endpoint={cloud.endpoint}"
        environment["MAINSPRING_ENCRYPTION"] += f"?endpoint={cloud.endpoint}"
        listens = "MAINSPRING_GATEWAY" if role == "gateway" else "MAINSPRING_CONTROL"
        names = re.findall(
            r"(MAINSPRING_\w+) *= *aws_secretsmanager_secret\.catalog\.arn", self.module.texts["secrets.tf"]
        )
        self.environment = {
            **self.values["environment"], **environment, **dict.fromkeys(names, catalog), **cloud.roles[role],
            "MAINSPRING_KEYS": _packed(fleet.project.settings.state / "keys"), listens: f"0.0.0.0:{self.port}",
            "PATH": os.environ["PATH"], "AWS_EC2_METADATA_DISABLED": "true",
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        }  # fmt: skip

    def _local(self, name: str) -> dict[str, str]:
        [text] = [each[name] for each in self.module.blocks("locals") if name in each]
        return dict(re.findall(r'(\w+) = ("[^"]*"|[\w.]+)', text))

    def command(self, *instead: str) -> list[str]:
        arguments = [*(instead or self.values["command"][self.role]), *self.values["where"]]
        return [sys.executable, "-m", "mainspring.processes.task", *arguments]

    def well(self) -> bool:
        """Return whether the task's own check of health passes."""
        program = self.values["probe"][self.role][3].replace("8081", str(self.port))
        return not subprocess.run([sys.executable, "-c", program], stderr=subprocess.DEVNULL, check=False).returncode

    @contextmanager
    def up(self, log: Path) -> Iterator[None]:
        with log.open("wb") as told:
            process = subprocess.Popen(self.command(), env=self.environment, stdout=told, stderr=told)
            try:
                wait_until(lambda: self.well() or process.poll() is not None, "the task", within_s=60.0)
                assert process.poll() is None, log.read_text()[-3000:]
                yield
            finally:
                process.terminate()
                assert process.wait(60) == 0, log.read_text()[-3000:]


def _packed(keys: Path) -> str:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        archive.add(keys, "keys")
    return base64.b64encode(content.getvalue()).decode()


def _secure(port: int) -> http.client.HTTPSConnection:
    """Return a connection that verifies no certificate, as the load balancer's."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)


def _filled(text: str, known: Mapping[str, str]) -> str:
    if not text.startswith('"'):
        return known[text]
    return re.sub(r"\$\{([^}]+)\}", lambda found: known[found[1]], text.strip('"'))


@deep
def test_tasks_serve_log_and_keep_house_with_their_rights(
    cloud: Cloud, act_as: As, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    act_as("worker")
    catalog = postgres_server.fresh().text
    fleet = Fleet(tmp_path / "project", workers=1, settings={"catalog": catalog, "blobs": cloud.place("blobs")})
    (fleet.root / "mainspring.toml").write_text('name = "fleet"\nmodules = ["small"]\n')
    (fleet.root / "small.py").touch()
    fleet.publish("1")
    fleet.project.close()
    gateway = Task(cloud, fleet, catalog, tmp_path, "gateway")
    with gateway.up(tmp_path / "gateway.log"):
        own = socket.gethostbyname(socket.gethostname())
        for host in ("models.example.org", f"{own}:{gateway.port}"):
            connection = _secure(gateway.port)
            connection.request("POST", INFER, BODY, {"Authorization": f"Bearer {fleet.key}", "Host": host})
            reply = connection.getresponse()
            assert reply.status == 200
            assert json.loads(reply.read())["outputs"][0]["data"] == pytest.approx(answer_of("1"))
            connection.close()
    assert open_object_lake(Url(cloud.place("lake")), tmp_path / "looked").describe("predictions").rows >= 2
    worker = Task(cloud, fleet, catalog, tmp_path, "worker")
    with worker.up(tmp_path / "worker.log"):
        made = subprocess.run(
            worker.command("keys", "create", "administrator", "--scope", "admin", "--expires", "1h", "--json"),
            env=worker.environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        connection = _secure(worker.port)
        connection.request("GET", "/api/status", headers={"Authorization": f"Bearer {json.loads(made.stdout)['key']}"})
        assert connection.getresponse().status == 200
        connection.close()
    for name in ("gateway", "worker"):
        log = (tmp_path / f"{name}.log").read_text()
        assert "AccessDenied" not in log
        assert "Denied" not in log
