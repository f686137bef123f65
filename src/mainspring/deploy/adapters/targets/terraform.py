"""A module of Terraform in a folder: what a cloud needs to run the project in a private network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from mainspring.core.ids import check_id
from mainspring.deploy.adapters.targets.folder import Folder, file
from mainspring.deploy.alarms import BurnAlarm
from mainspring.deploy.targets.model import Deployment, Piece
from mainspring.deploy.terraform.aws import aws_needs, aws_values
from mainspring.deploy.terraform.module import module_files
from mainspring.deploy.terraform.options import TerraformOptions
from mainspring.deploy.terraform.page import table_text
from mainspring.deploy.terraform.policies import iam_text
from mainspring.deploy.terraform.statements import statements


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
        texts = module_files(
            self._options.cloud,
            deployment,
            values,
            iam=iam_text(table),
            page=table_text(table),
            sign=self._sign,
        )
        needs = aws_needs(deployment, self._options)
        return [replace(file(name, text), needs=needs.get(name)) for name, text in texts.items()]

    def problems(self, _pieces: Sequence[Piece]) -> list[str]:
        return []
