"""The server and model under test, whichever protocol carries the calls, with the answers so far."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

from oip_conformance.check import Failed, NotTested
from oip_conformance.tensors import ROWS, close, flat, shape_of, values


class Answer(Protocol):
    """Answer to one call."""

    @property
    def ok(self) -> bool:
        """Whether the call succeeded."""
        ...

    @property
    def told(self) -> str:
        """The status, and the beginning of what came with it, for people."""
        ...

    def object(self) -> dict[str, Any]:
        """Return the answer in the JSON form of the protocol.

        Raises:
            Failed: The answer has no such form.
        """
        ...

    def error(self) -> str:
        """Return the status of a refusal.

        Raises:
            Failed: The call was not refused, or not in the form of the specification.
        """
        ...


class Subject(ABC):
    """One model of one server.

    Args:
        given: An inference request that the model answers, if its metadata does not suffice to make one.
    """

    def __init__(self, model: str, given: Mapping[str, Any] | None = None) -> None:
        self.model = model
        self._given = given

    @abstractmethod
    def server_metadata(self) -> Answer: ...

    @abstractmethod
    def model_metadata(self, model: str = "", version: str = "") -> Answer:
        """Ask for the metadata of `model`, by default the subject's."""

    @abstractmethod
    def ready(self, model: str = "", version: str = "") -> bool:
        """Ask whether `model`, by default the subject's, is ready."""

    @abstractmethod
    def infer(self, request: Any, *, model: str = "", version: str = "") -> Answer:
        """Ask for an inference, as of `request`, the JSON form of the protocol."""

    @property
    def unknown(self) -> str:
        """The name of a model that the server does not have."""
        return f"no-such-{self.model.replace('/', '')[:40]}"

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The model's metadata.

        Raises:
            NotTested: The server did not return it.
        """
        answer = self.model_metadata()
        if not answer.ok:
            raise NotTested(f"the model's metadata {answer.told}")
        return answer.object()

    @property
    def versions(self) -> list[str]:
        """The versions that can be requested by name.

        Raises:
            NotTested: There are none.
        """
        found = self.metadata.get("versions")
        if not isinstance(found, list) or not found:
            raise NotTested("the model's metadata names no versions")
        return [str(version) for version in found]

    def declared(self, side: str) -> list[dict[str, Any]]:
        """Return the tensors that metadata describes as `inputs` or `outputs`.

        Raises:
            NotTested: Metadata describes none.
        """
        found = self.metadata.get(side)
        if not isinstance(found, list) or not found or not all(isinstance(each, dict) for each in found):
            raise NotTested(f"the model's metadata describes no {side}")
        return found

    @cached_property
    def request(self) -> dict[str, Any]:
        """A request that the model must answer: the given one, else one made from the metadata."""
        return self.request_of(ROWS)

    def request_of(self, rows: int) -> dict[str, Any]:
        """Return a request of `rows` rows, if the metadata leaves their number open and no request was given."""
        if self._given is not None:
            return dict(self._given)
        inputs = []
        for tensor in self.declared("inputs"):
            shape = shape_of(tensor["shape"], rows)
            data = values(tensor["datatype"], math.prod(shape))
            inputs.append({"name": tensor["name"], "shape": shape, "datatype": tensor["datatype"], "data": data})
        return {"inputs": inputs}

    @property
    def beyond_json(self) -> bool:
        """True if the request goes as JSON, and an input is of a datatype that a server need not take in JSON."""
        return any(each["datatype"] in ("FP16", "BF16") for each in self.request["inputs"])

    @cached_property
    def reply(self) -> dict[str, Any]:
        """The model's reply to `request`.

        Raises:
            NotTested: The model does not answer it, so no further check can run.
        """
        answer = self.infer(self.request)
        if not answer.ok and self.beyond_json:
            raise NotTested("an input is FP16, which JSON does not carry")
        if not answer.ok:
            raise NotTested(f"a valid request {answer.told}")
        return answer.object()

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """The tensors of `reply`."""
        return outputs_of(self.reply)


def outputs_of(reply: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a reply's tensors.

    Raises:
        Failed: The reply has none.
    """
    found = reply.get("outputs")
    if not isinstance(found, list) or not found or not all(isinstance(each, dict) for each in found):
        raise Failed("the reply's 'outputs' is not an array of tensors")
    return found


def same_outputs(found: Sequence[Mapping[str, Any]], expected: Sequence[Mapping[str, Any]]) -> None:
    """Raise if the tensors differ by more than rounding.

    Raises:
        Failed: An expected tensor is missing, or has other values.
    """
    data = {each["name"]: flat(each.get("data", [])) for each in found}
    for each in expected:
        if each["name"] not in data or not close(data[each["name"]], flat(each["data"])):
            raise Failed(f"output {each['name']!r} differs: {data.get(each['name'])} and {each['data']}"[:200])
