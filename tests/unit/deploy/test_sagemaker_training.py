"""A training job of SageMaker: AWS's own model takes it, and what it would refuse is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kit.depot import lay_out
from kit.later import later
from mainspring.cli.commands.train import command as train
from mainspring.cli.main import cli
from mainspring.core.errors import Invalid
from mainspring.core.time import ManualClock, parse_instant
from mainspring.deploy.sagemaker.training import Job, training_job
from mainspring.operations.distributed.manifests import sagemaker_job
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings

session = later("botocore.session")
validate = later("botocore.validate")

SERVERS = {
    "catalog": "postgresql://db/shop", "tracking": "postgresql://db/shop", "lake": "s3://shop/lake",
    "blobs": "s3://shop/blobs", "checkpoints": "s3://shop/checkpoints",
}  # fmt: skip


def job(**changes: Any) -> Job:
    usual = {"role": "arn:aws:iam::123456789012:role/trains", "folder": "s3://shop/jobs", "image": "shop:1"}
    return Job(**{**usual, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay_out(tmp_path_factory.mktemp("depot") / "depot").root


def project(folder: Path, **changes: str) -> Project:
    return open_project(load_settings(folder, overrides={**SERVERS, **changes}, environment={}))


@pytest.mark.parametrize("changes", [{}, {"spot": True, "subnets": ["subnet-1"], "security_groups": ["sg-1"]}])
def test_it_is_one_that_aws_takes_and_its_command_is_ours(folder: Path, changes: dict[str, Any]) -> None:
    request = sagemaker_job(project(folder), "late-parcel", job(env={"LEVEL": "info"}, **changes), processes=2)
    shape = session.get_session().get_service_model("sagemaker").operation_model("CreateTrainingJob").input_shape
    found = validate.ParamValidator().validate(request, shape)
    assert not found.has_errors(), found.generate_report()
    assert request["EnableManagedSpotTraining"] is bool(changes)
    assert ("MaxWaitTimeInSeconds" in request["StoppingCondition"]) is bool(changes)
    words = request["AlgorithmSpecification"]["ContainerArguments"]
    context = train.make_context("train", list(words))
    assert (context.params["model"], context.params["processes"]) == ("late-parcel", 2)


@pytest.mark.parametrize(
    ("changes", "settings", "told"),
    [
        ({"role": "me"}, {}, "role is 'me'"),
        ({"instance": "m5.large"}, {}, "instance is 'm5.large'"),
        ({"folder": "jobs"}, {}, "--folder is 'jobs'"),
        ({"image": ""}, {}, "needs an image"),
        ({"longest_s": 1}, {}, "--longest is 1 s"),
        ({"subnets": ["subnet-1"]}, {}, "given together"),
        ({"env": {"DB_PASSWORD": "x"}}, {}, "may be a secret"),
        ({}, {"catalog": "sqlite:///x.db"}, "has its catalog at sqlite"),
        ({"spot": True}, {"checkpoints": ""}, "no place for checkpoints"),
    ],
)
def test_what_it_would_refuse_is_refused(
    folder: Path, changes: dict[str, Any], settings: dict[str, str], told: str
) -> None:
    with pytest.raises(Invalid, match=told):
        sagemaker_job(project(folder, **settings), "late-parcel", job(**changes))


def test_each_export_has_a_name_of_its_own_unless_it_is_given_one(folder: Path) -> None:
    made = project(folder)
    names = []
    for now in ("2013-09-20T10:30:00Z", "2013-09-20T10:30:01Z"):
        object.__setattr__(made, "wall", ManualClock(parse_instant(now)))
        names += [sagemaker_job(made, "late-parcel", job(name=name))["TrainingJobName"] for name in ("", "mine")]
    assert names == ["late-parcel-20130920T103000Z", "mine", "late-parcel-20130920T103001Z", "mine"]


def test_a_long_argument_is_refused() -> None:
    with pytest.raises(Invalid, match="300 characters"):
        training_job("late", ["l" * 300], job())


def test_the_command_writes_a_request(folder: Path, tmp_path: Path) -> None:
    settings = "\n".join(f'{name} = "{value}"' for name, value in SERVERS.items())
    (folder / "mainspring.toml").write_text(
        (folder / "mainspring.toml").read_text() + f"\n[profiles.cloud]\n{settings}\n"
    )
    written = tmp_path / "job.json"
    words = ["late-parcel", "--role", job().role, "--folder", "s3://shop/jobs", "--image", "shop:1", "--longest", "2h"]
    given = ["export", "training-job", *words, "--output", str(written), "--project", str(folder), "--profile", "cloud"]
    done = CliRunner().invoke(cli, given)
    assert done.exit_code == 0, done.output
    assert json.loads(written.read_text())["StoppingCondition"] == {"MaxRuntimeInSeconds": 7200}
