"""Alarms of CloudWatch. Their tags have the digest of what they were made with: a change by others is not seen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mainspring.core.errors import Conflict
from mainspring.deploy.adapters.aws import asked
from mainspring.deploy.sagemaker.alarms import BURN, WINDOW
from mainspring.deploy.targets.model import ABSENT, Piece, Seen

KINDS = (WINDOW, BURN)
_TYPE = {WINDOW: "MetricAlarm", BURN: "CompositeAlarm"}


@dataclass(frozen=True)
class Alarms:
    """Alarms of one region.

    Args:
        client: Of CloudWatch.
        tags: Of all that is made.
        digest: Tag that has the digest.
    """

    client: Any
    tags: Mapping[str, str]
    digest: str

    def look(self, id: str) -> Seen:
        if not (arn := self._arn(id)):
            return ABSENT
        return Seen("ready", self._tags(arn).get(self.digest, ""))

    def make(self, piece: Piece) -> None:
        arn, request = self._arn(piece.id), json.loads(piece.content)
        if arn and self.digest not in self._tags(arn):
            raise Conflict(
                f"{piece.id} is there, and no deployment made it.",
                fix="remove it, or rename the target or the endpoint.",
            )
        tags = [{"Key": name, "Value": value} for name, value in {**self.tags, self.digest: piece.digest}.items()]
        put = self.client.put_metric_alarm if piece.kind == WINDOW else self.client.put_composite_alarm
        asked(put, **request, **({} if arn else {"Tags": tags}))
        if arn:  # which takes no tags with a change
            asked(self.client.tag_resource, ResourceARN=arn, Tags=tags)

    def remove(self, id: str) -> None:
        arn = self._arn(id)
        if arn and self.digest in self._tags(arn):
            asked(self.client.delete_alarms, AlarmNames=[id.partition("/")[2]])

    def _arn(self, id: str) -> str:
        kind, _, name = id.partition("/")
        found = asked(self.client.describe_alarms, AlarmNames=[name], AlarmTypes=[_TYPE[kind]])
        return next((str(each["AlarmArn"]) for each in found.get(f"{_TYPE[kind]}s", [])), "")

    def _tags(self, arn: str) -> dict[str, str]:
        found = asked(self.client.list_tags_for_resource, ResourceARN=arn)["Tags"]
        return {each["Key"]: each["Value"] for each in found}
