"""A target in SageMaker: models, endpoint configurations, endpoints, their scaling, and versions in its registry.

Credentials come as with AWS's own tools, and are in no file of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import boto3
from botocore.config import Config

from mainspring.core.errors import Unavailable
from mainspring.deploy.adapters.aws import Absent
from mainspring.deploy.adapters.targets.sagemaker_alarms import KINDS, Alarms
from mainspring.deploy.adapters.targets.sagemaker_problems import problems
from mainspring.deploy.adapters.targets.sagemaker_resources import DIGEST, Resources
from mainspring.deploy.alarms import BurnAlarm
from mainspring.deploy.sagemaker.options import SagemakerOptions
from mainspring.deploy.sagemaker.requests import pieces
from mainspring.deploy.targets.model import Deployment, Piece, Seen

_WAIT_S = 1800.0  # SageMaker itself gives up then
_CONFIG = Config(
    connect_timeout=10, read_timeout=60, user_agent_extra="mainspring", retries={"max_attempts": 8, "mode": "standard"}
)


@dataclass(frozen=True)
class SagemakerTarget:
    """Endpoints in one region.

    Args:
        follows: Whether images of the profile follow a catalog on a server.
        wait_s: Longest time in which an endpoint settles or is gone.
        alarms: Returns those of the project's objectives.
    """

    options: SagemakerOptions
    region: str
    follows: bool = False
    wait_s: float = _WAIT_S
    alarms: Callable[[], Sequence[BurnAlarm]] = tuple

    def render(self, deployment: Deployment) -> list[Piece]:
        return pieces(deployment, self.options, self.region, follows=self.follows, alarms=self.alarms)

    def problems(self, pieces: Sequence[Piece]) -> list[str]:
        return list(problems(pieces, self._client, self.region))

    def look(self, ids: Sequence[str]) -> list[Seen]:
        return [self._keeper(id).look(id) for id in ids]

    def make(self, piece: Piece) -> None:
        try:
            self._keeper(piece.id).make(piece)
        except Absent as error:
            raise Unavailable(f"{piece.id} needs what is not there any more: {error}", fix="deploy again.") from error

    def remove(self, id: str) -> None:
        self._keeper(id).remove(id)

    def _keeper(self, id: str) -> Resources | Alarms:
        return self._alarms if id.partition("/")[0] in KINDS else self._resources

    @cached_property
    def _alarms(self) -> Alarms:
        return Alarms(self._client("cloudwatch"), self.options.tags, DIGEST)

    @cached_property
    def _resources(self) -> Resources:
        return Resources(
            self._client("sagemaker"), self._client("application-autoscaling"), self.options.tags, self.wait_s
        )

    def _client(self, service: str) -> Any:
        return boto3.client(service, region_name=self.region, config=_CONFIG)
