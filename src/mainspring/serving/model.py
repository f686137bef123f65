"""Endpoints, and what stands behind one right now."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import msgspec

from mainspring.core.declare import declare
from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.core.time import parse_duration


@dataclass(frozen=True, eq=False)
class Endpoint:
    """A name under which predictions are asked for.

    Args:
        name: Its name, an id; it is the model name of the Open Inference Protocol.
        model: `model@alias` or `model@version`.
        deadline: The longest a request may take, a duration; what cannot make it is refused at once.
        replicas: The smallest and largest number of workers.
    """

    name: str
    _: KW_ONLY
    model: str
    deadline: str | int = "50ms"
    replicas: tuple[int, int] = (1, 1)
    max_queue_rows: int = 4096
    description: str = ""

    def __post_init__(self) -> None:
        check_id(self.name, "endpoint")
        model, _, reference = self.model.partition("@")
        if not reference:
            raise Invalid(f"Endpoint {self.name!r} serves {self.model!r}.", fix=f"write {self.model}@champion.")
        check_id(model, "model")
        check_id(reference, "alias or version")
        _ = self.deadline_us
        declare(self)

    @property
    def model_name(self) -> str:
        return self.model.partition("@")[0]

    @property
    def reference(self) -> str:
        return self.model.partition("@")[2]

    @property
    def deadline_us(self) -> int:
        return parse_duration(self.deadline)


class Arm(msgspec.Struct, frozen=True):
    """One version behind an endpoint, with its share of the traffic."""

    version: str
    digest: str
    weight: float = 1.0


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """What an endpoint serves now. `revision` grows with every change of any route."""

    endpoint: str
    model: str
    arms: tuple[Arm, ...]
    deadline_us: int
    max_queue_rows: int
    revision: int = 0
