"""Rights of the processes in AWS, as the module of Terraform gives them: they suffice for the code, and are few.

Moto's server checks each request against the policies of the role whose credentials it has: actions and, for S3,
resources. It knows no resources of KMS, no key of a service behind S3 (those statements are left out here), and for the
deletion of several objects it asks for the right to the bucket, where S3 asks for that to each object.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pytest

from kit.object_store import ENVIRONMENT, SERVER
from mainspring.core.errors import Denied, MainspringError, NotFound
from mainspring.core.settings import Url
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.deltaobjects import open_object_lake
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
    with pytest.raises(Exception, match="AccessDenied"):
        boto3.client("kms", endpoint_url=cloud.endpoint, region_name=REGION).disable_key(KeyId=cloud.key["KeyId"])
