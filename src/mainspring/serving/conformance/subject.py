"""The server and model that are examined, with what they said so far."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any
from urllib.parse import quote

from mainspring.serving.conformance.results import Failed, NotTested
from mainspring.serving.conformance.tensors import ROWS, shape_of, values
from mainspring.serving.conformance.wire import Answer, Http

_JSON = {"content-type": "application/json"}


class Subject:
    """One model of one server.

    Args:
        given: An inference request that the model answers, where its metadata does not suffice to make one.
    """

    def __init__(self, http: Http, model: str, given: Mapping[str, Any] | None = None) -> None:
        self.http = http
        self.model = model
        self.path = f"/v2/models/{quote(model, safe='')}"
        self._given = given

    def get(self, path: str) -> Answer:
        return self.http.ask("GET", path)

    def infer(self, request: Any, *, path: str = "") -> Answer:
        """Ask for an inference; `request` as bytes is sent as it is."""
        body = request if isinstance(request, bytes) else json.dumps(request).encode()
        return self.http.ask("POST", path or f"{self.path}/infer", body, _JSON)

    @cached_property
    def server(self) -> dict[str, Any]:
        """The server's metadata, empty where there is none."""
        answer = self.get("/v2")
        return answer.object() if answer.ok else {}

    @property
    def extensions(self) -> list[Any]:
        found = self.server.get("extensions")
        return found if isinstance(found, list) else []

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The model's metadata.

        Raises:
            NotTested: It has none that can be read.
        """
        answer = self.get(self.path)
        if not answer.ok:
            raise NotTested(f"the model's metadata answered {answer.status}: {answer.shown()}")
        return answer.object()

    @property
    def versions(self) -> list[str]:
        """The versions that may be asked for by name.

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
            NotTested: It describes none.
        """
        found = self.metadata.get(side)
        if not isinstance(found, list) or not found or not all(isinstance(each, dict) for each in found):
            raise NotTested(f"the model's metadata describes no {side}")
        return found

    @cached_property
    def request(self) -> dict[str, Any]:
        """A request that the model must answer: what was given, else made by its metadata."""
        return self.request_of(ROWS)

    def request_of(self, rows: int) -> dict[str, Any]:
        """Return a request of so many rows, where the metadata leaves their number open and no request was given."""
        if self._given is not None:
            return dict(self._given)
        inputs = []
        for tensor in self.declared("inputs"):
            shape = shape_of(tensor["shape"], rows)
            data = values(tensor["datatype"], math.prod(shape))
            inputs.append({"name": tensor["name"], "shape": shape, "datatype": tensor["datatype"], "data": data})
        return {"inputs": inputs}

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
            raise NotTested(f"a valid request answered {answer.status}: {answer.shown()}")
        return answer.object()

    @property
    def beyond_json(self) -> bool:
        """True if an input is of a datatype that a server need not take in JSON."""
        return any(each["datatype"] in ("FP16", "BF16") for each in self.request["inputs"])

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """The tensors of `reply`."""
        return outputs_of(self.reply)


def outputs_of(reply: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a reply's tensors.

    Raises:
        Failed: It has none.
    """
    found = reply.get("outputs")
    if not isinstance(found, list) or not found or not all(isinstance(each, dict) for each in found):
        raise Failed("the reply's 'outputs' is no array of tensors")
    return found
