"""Targets whose pieces are specifications of a cloud's managed service, as files for its own commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mainspring.deploy.adapters.targets.folder import Folder, file
from mainspring.deploy.alarms import BurnAlarm
from mainspring.deploy.manifests.clouds import azureml, vertex, vertex_apply
from mainspring.deploy.manifests.clouds.azureml import AzureOptions
from mainspring.deploy.manifests.clouds.machines import machine_for, quota_problems
from mainspring.deploy.manifests.clouds.vertex import VertexOptions
from mainspring.deploy.targets.model import FILE, Deployment, Needs, Piece
from mainspring.deploy.terraform.azure import azure_files
from mainspring.deploy.terraform.google import google_files

MODULE = "terraform"
_AZURE_SPARE = 0.2  # https://learn.microsoft.com/azure/machine-learning/how-to-manage-quotas


class CloudTarget(Folder):
    def __init__(
        self,
        folder: Path,
        specifications: Callable[[Deployment], Mapping[str, Any]],
        needs: Callable[[Deployment], Needs],
        machines: str,
        problems: Callable[[Sequence[Piece]], list[str]],
        program: Callable[[Deployment], Mapping[str, str]] = lambda _: {},
        module: Callable[[Deployment], Mapping[str, str]] = lambda _: {},
    ) -> None:
        """Make the target.

        Args:
            machines: End of the names of files that stand for running machines.
            program: Returns programs that apply the files, by name.
            module: Returns the files of a module of Terraform with what surrounds the service, by name.
        """
        super().__init__(folder)
        self._specifications, self._needs, self._machines = specifications, needs, machines
        self._program, self._module = program, module
        self.problems = problems

    def render(self, deployment: Deployment) -> list[Piece]:
        found, before = list[Piece](), set[str]()
        for name, body in self._specifications(deployment).items():
            folder = name.rpartition("/")[0]
            near = [f"{FILE}/{each}" for each in sorted(before) if folder and each.startswith(f"{folder}/")]
            piece = file(name, json.dumps(body, indent=2, ensure_ascii=False) + "\n", after=near)
            found.append(replace(piece, needs=self._needs(deployment)) if name.endswith(self._machines) else piece)
            before.add(name)
        every = [piece.id for piece in found]
        found += [file(name, text, after=every) for name, text in self._program(deployment).items()]
        return found + [file(f"{MODULE}/{name}", text) for name, text in self._module(deployment).items()]


def vertex_target(
    options: VertexOptions,
    root: Path,
    sign: Callable[[bytes], bytes],
    alarms: Callable[[], Sequence[BurnAlarm]] = tuple,
) -> CloudTarget:
    """Return the target of the kind `vertex`.

    Args:
        sign: Returns the signature of the installation.
        alarms: Returns those of the project's objectives.
    """
    return CloudTarget(
        root / options.folder,
        lambda deployment: vertex.specifications(deployment, options),
        lambda made: replace(
            machine_for("google", made, options.machine, vertex.FAMILIES).needs(*made.replicas),
            surcharge=vertex.SURCHARGE,
        ),
        "/deploy.json",
        lambda pieces: quota_problems(pieces, options.quota),
        lambda deployment: {vertex_apply.NAME: vertex_apply.program(deployment, options)},
        lambda deployment: google_files(deployment, options, alarms(), sign) if options.terraform else {},
    )


def azure_target(
    options: AzureOptions,
    root: Path,
    sign: Callable[[bytes], bytes],
    alarms: Callable[[], Sequence[BurnAlarm]] = tuple,
) -> CloudTarget:
    """Return the target of the kind `azureml`. Arguments are those of `vertex_target`."""
    return CloudTarget(
        root / options.folder,
        lambda deployment: azureml.specifications(deployment, options),
        lambda made: machine_for("azure", made, options.machine, azureml.FAMILIES).needs(*made.replicas),
        "/deployment.yml",
        lambda pieces: quota_problems(pieces, options.quota, _AZURE_SPARE),
        module=lambda deployment: azure_files(deployment, options, alarms(), sign) if options.terraform else {},
    )
