"""A module of Terraform in a folder: what a cloud needs to run the project in a private network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

import msgspec

from mainspring.core.ids import check_id
from mainspring.deploy.adapters.targets.folder import Folder, file
from mainspring.deploy.alarms import BurnAlarm
from mainspring.deploy.targets.model import Deployment, Piece
from mainspring.deploy.terraform.aws import aws_needs, aws_values
from mainspring.deploy.terraform.options import TerraformOptions
from mainspring.deploy.terraform.page import table_text
from mainspring.deploy.terraform.policies import iam_text
from mainspring.deploy.terraform.statements import statements
from mainspring.security.signing import signed_text

IAM, PAGE, VALUES = "iam.tf", "iam.md", "terraform.tfvars.json"


class TerraformTarget(Folder):
    """Files of a module are the same for all projects. What differs is in values, which Terraform never takes for code.

    Args:
        drain_s: Longest time in which a gateway that ends answers its requests.
        hosts: Names of hosts to which the profile lets both planes answer.
        sign: Returns the signature of the installation.
        alarms: Returns those of the project's objectives.
    """

    def __init__(
        self,
        options: TerraformOptions,
        root: Path,
        drain_s: int,
        hosts: Sequence[str],
        sign: Callable[[bytes], bytes],
        alarms: Callable[[], Sequence[BurnAlarm]] = tuple,
    ) -> None:
        super().__init__(root / options.folder)
        self._options, self._drain_s, self._hosts, self._sign = options, drain_s, hosts, sign
        self._alarms = alarms

    def render(self, deployment: Deployment) -> list[Piece]:
        for service in deployment.services:
            check_id(service.endpoint, "endpoint")
        values = aws_values(deployment, self._options, drain_s=self._drain_s, hosts=self._hosts, alarms=self._alarms())
        table = statements(self._options.cloud)
        policies = iam_text(table)
        module = files("mainspring.deploy.terraform") / self._options.cloud
        texts = {each.name: each.read_text(encoding="utf-8") for each in module.iterdir() if each.name.endswith(".tf")}
        texts[IAM] = policies
        texts[VALUES] = msgspec.json.format(msgspec.json.encode(values)).decode() + "\n"
        about = {"project": deployment.project, "target": deployment.target, "region": deployment.region}
        lines = [f"- {name}: `{text}`" for name, text in about.items()]
        digests = [f"- SHA-256 of `{name}`: `{sha256(texts[name].encode()).hexdigest()}`" for name in (IAM, "roles.tf")]
        page = "\n".join(["# Rights of this deployment\n", *lines, *digests, "", table_text(table)])
        needs = aws_needs(deployment, self._options)
        found = [*(file(name, text) for name, text in sorted(texts.items())), file(PAGE, signed_text(page, self._sign))]
        return [replace(each, needs=needs.get(each.name)) for each in found]

    def problems(self, _pieces: Sequence[Piece]) -> list[str]:
        return []
