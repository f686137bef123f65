"""Calls of the gRPC service, and their answers."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.json_format import ParseDict

from mainspring.core.errors import Invalid, NotFound, Unavailable
from mainspring.security.model import Action, Principal
from mainspring.serving.grpc import health, wire
from mainspring.serving.grpc.infer import read_parameters, read_request, write_reply
from mainspring.serving.plane.inference import infer, lane_of
from mainspring.serving.plane.metadata import (
    model_config,
    model_metadata,
    model_statistics,
    repository_index,
    server_metadata,
)
from mainspring.serving.plane.plane import DataPlane
from mainspring.serving.protocol.asked import Answered


@dataclass(eq=False, slots=True)
class Caller:
    """A caller: who it is, `None` where no key is needed; since when, and the call's own deadline (monotonic, µs).
    `answered` is what an `infer` came to; `request_id` is its own name for a call of one message."""

    principal: Principal | None
    received: int
    deadline: float = math.inf
    answered: Answered | None = None
    request_id: str = ""
    cache_control: str = ""  # whether an earlier answer will do, as in HTTP's field
    sees: Callable[[str], bool] = lambda _endpoint: False  # whether the caller may see an endpoint in a list


@dataclass(frozen=True, slots=True)
class Call:
    """A call of one message. `action` is what the caller must be allowed on the endpoint; where the
    message names none, the action is `gateway.open`. `None`: a probe, for which no key is needed."""

    name: str
    action: Action | None
    answer: Callable[[DataPlane, Any, Caller], Awaitable[Any]]
    model_field: str = ""  # of its message: which endpoint it is about
    service: str = wire.SERVICE

    @property
    def request(self) -> Any:
        """The class of its message."""
        return (wire.CALLS if self.service == wire.SERVICE else wire.HEALTH_CALLS)[self.name][0]

    def model_of(self, message: Any) -> str:
        """Return the endpoint that a message names, empty if it is about none."""
        return getattr(message, self.model_field) if self.model_field else ""


def _filled(call: str, document: dict[str, Any]) -> Any:
    """Return a call's reply from what HTTP answers; what the protocol has no field for is left out."""
    return ParseDict(document, wire.CALLS[call][1](), ignore_unknown_fields=True)


async def _server_live(_plane: DataPlane, _message: Any, _caller: Caller) -> Any:
    return _filled("ServerLive", {"live": True})


async def _server_ready(plane: DataPlane, _message: Any, _caller: Caller) -> Any:
    return _filled("ServerReady", {"ready": plane.unready() is None})


async def _model_ready(plane: DataPlane, message: Any, _caller: Caller) -> Any:
    try:
        plane.check_ready(lane_of(plane.endpoint(message.name), message.version))
    except (NotFound, Unavailable):
        return _filled("ModelReady", {"ready": False})
    return _filled("ModelReady", {"ready": True})


async def _server(_plane: DataPlane, _message: Any, _caller: Caller) -> Any:
    return _filled("ServerMetadata", server_metadata())


async def _model(plane: DataPlane, message: Any, _caller: Caller) -> Any:
    served = plane.endpoint(message.name)
    return _filled("ModelMetadata", model_metadata(message.name, served, lane_of(served, message.version).runtime))


async def _config(plane: DataPlane, message: Any, _caller: Caller) -> Any:
    runtime = lane_of(plane.endpoint(message.name), message.version).runtime
    return _filled("ModelConfig", {"config": model_config(message.name, runtime)})


async def _statistics(plane: DataPlane, message: Any, caller: Caller) -> Any:
    return _filled("ModelStatistics", model_statistics(plane, message.name, message.version, caller.sees))


async def _index(plane: DataPlane, message: Any, caller: Caller) -> Any:
    return _filled("RepositoryIndex", {"models": repository_index(plane, caller.sees, ready=message.ready)})


async def _infer(plane: DataPlane, message: Any, caller: Caller) -> Any:
    served = plane.endpoint(message.model_name)
    deadline = min(caller.deadline, caller.received + served.route.deadline_us)
    lane = lane_of(served, message.model_version)
    lane.check_time(caller.received, deadline)  # before anything is read, and again when `timeout` is known
    parameters = read_parameters(message)
    if parameters.timeout:
        deadline = min(deadline, caller.received + parameters.timeout)
        lane.check_time(caller.received, deadline)
    if (
        len(served.lanes) == 1 and not served.route.rollout
    ) or message.model_version:  # else the router chooses, by what is in the tensors
        shape = message.inputs[0].shape if message.inputs else ()
        lane.check_queue(
            shape[0] if shape else 0, received=caller.received, deadline=deadline, priority=parameters.priority
        )
    asked = read_request(message, parameters)
    typed = any(each.HasField("contents") for each in message.inputs)
    replies: list[Any] = []

    def encode(answered: Answered) -> None:
        begun = time.monotonic_ns()
        replies.append(write_reply(answered, raw=not typed))
        ended = time.monotonic_ns()
        plane.metrics.of(message.model_name).stages["encode"].observe((ended - begun) / 1e9)
        answered.encoded = (begun, ended)

    caller.answered = await infer(
        asked,
        served,
        version=message.model_version,
        principal=caller.principal.id if caller.principal is not None else "",
        received_us=caller.received,
        deadline_us=deadline,
        named=caller.request_id,
        caller=caller.principal,
        cache_control=caller.cache_control,
        encode=encode,
    )
    return replies[0]


def _nothing(call: str) -> Callable[[DataPlane, Any, Caller], Awaitable[Any]]:
    async def answer(_plane: DataPlane, _message: Any, _caller: Caller) -> Any:
        return wire.CALLS[call][1]()

    return answer


async def _no_shared_memory(_plane: DataPlane, _message: Any, _caller: Caller) -> Any:
    raise Invalid("This server does not support shared memory.", fix="send tensors as raw_input_contents.")


async def _check(plane: DataPlane, message: Any, _caller: Caller) -> Any:
    return health.check(plane, message.service)


INFER = Call("ModelInfer", Action.ENDPOINT_PREDICT, _infer, "model_name")
CALLS = (
    Call("ServerLive", None, _server_live),
    Call("ServerReady", None, _server_ready),
    Call("ModelReady", Action.ENDPOINT_DESCRIBE, _model_ready, "name"),
    Call("ServerMetadata", Action.GATEWAY_OPEN, _server),
    Call("ModelMetadata", Action.ENDPOINT_DESCRIBE, _model, "name"),
    INFER,
    Call("ModelConfig", Action.ENDPOINT_DESCRIBE, _config, "name"),
    Call("ModelStatistics", Action.ENDPOINT_DESCRIBE, _statistics, "name"),
    Call("RepositoryIndex", Action.GATEWAY_OPEN, _index),
    # None is registered, so there is none to list, and nothing to take back.
    *(
        Call(name, Action.GATEWAY_OPEN, _nothing(name))
        for kind in ("System", "Cuda")
        for name in (f"{kind}SharedMemoryStatus", f"{kind}SharedMemoryUnregister")
    ),
    *(Call(f"{kind}SharedMemoryRegister", Action.GATEWAY_OPEN, _no_shared_memory) for kind in ("System", "Cuda")),
    Call("Check", None, _check, service=wire.HEALTH),
)
