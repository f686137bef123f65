"""Requests of every kind to every route of a plane, made of its OpenAPI document, and what is wrong with the answers.

Names in paths are drawn from what the plane itself lists, so that the requests get behind the look-ups; what earlier
requests made is among it.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import httpx
import requests
import schemathesis
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, Phase, given, seed, settings
from jsonschema_rs import Draft202012Validator
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
_TRIES = 5
ENDLESS = {"/events", "/static/{name}"}  # a stream, and files
PAGES = ("text/html", "text/csv", "text/markdown", "application/json", "text/plain")
TEMPLATES = Path(__file__).parents[2] / "src/mainspring/console/templates"
HOSTILE = (
    *(
        "",
        " ",
        "yes",
        "-1",
        "0",
        "1e309",
        "NaN",
        "9" * 40,
        "\x00",
        "\U0001f600",
        "..",
        "../../etc/passwd",
        "%00",
        "%s%n",
    ),
    *(
        "'",
        '"><script>alert(1)</script>',
        "' or 1=1 --",
        "{{7*7}}",
        "${7*7}",
        "a" * 5000,
        "\u202e",
        "2024-02-30",
        "P1D",
    ),
    *(
        "2024-01-01T00:00:00Z",
        "-9223372036854775809",
        "[[",
        "(?:a+)+$",
        "metrics.auc > 0",
        "1d",
        "*",
        "\r\nx: y",
        "true",
    ),
)
_FIELDS = sorted(
    {name for page in TEMPLATES.glob("*.html") for name in re.findall(r'name="([\w.-]+)"', page.read_text())}
)
_SCIM = "urn:ietf:params:scim:"
_BODIES: dict[str, list[Any]] = {  # where a schema alone says too little of a valid one
    "/scim/v2/Users": [{"schemas": [f"{_SCIM}schemas:core:2.0:User"], "userName": "ann", "active": True}],
    "/scim/v2/Users/{user_id}": [
        {"schemas": [f"{_SCIM}schemas:core:2.0:User"], "userName": "bea", "active": False},
        {
            "schemas": [f"{_SCIM}api:messages:2.0:PatchOp"],
            "Operations": [{"op": "replace", "path": "active", "value": False}],
        },
    ],
    "/scim/v2/Groups": [{"schemas": [f"{_SCIM}schemas:core:2.0:Group"], "displayName": "team", "members": []}],
    "/scim/v2/Groups/{group_id}": [
        {"schemas": [f"{_SCIM}schemas:core:2.0:Group"], "displayName": "others", "members": []},
        {
            "schemas": [f"{_SCIM}api:messages:2.0:PatchOp"],
            "Operations": [{"op": "add", "path": "members", "value": [{"value": "x"}]}],
        },
    ],
    "/api/keys": [{"name": "till", "scopes": ["view", "predict"], "lifetime": "1d"}],
    "/api/audit/heads": [{"head": "audit\n1\nAAAA\n", "proof": ["AAAA"], "size": 1}],
}
_WRONG = (*HOSTILE, None, True, 0, -1, 0.5, 2**63, -(2**63) - 1, 1e308, [], [[]], {}, {"a": 1})
_LEAKS = re.compile(r"Traceback \(most recent|site-packages|/src/mainspring/|\.py\", line| object at 0x")


@dataclass
class Plane:
    """A plane that is up.

    Attributes:
        keys: Who asks -> the key; none without one.
        own: Ids that stay as they are: of the keys and their owners.
        secret: Texts that no answer has, as the folders of this machine.
    """

    url: str
    keys: Mapping[str, str | None]
    own: frozenset[str] = frozenset()
    secret: Sequence[str] = ()
    seed: int = 4
    faults: dict[str, str] = field(default_factory=dict)  # what is wrong -> the first request of which
    statuses: dict[str, dict[int, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    known: dict[str, list[str]] = field(default_factory=dict)
    listed: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # the same by the path of the list

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def header(self, who: str) -> dict[str, str]:
        key = self.keys[who]
        return {} if key is None else {"authorization": f"Bearer {key}"}

    def read(self, path: str) -> httpx.Response:
        """Ask as an administrator."""
        return httpx.get(self.url + path, headers=self.header("administrator"), timeout=60, trust_env=False)

    def look_around(self, document: Mapping[str, Any]) -> None:
        """Learn the names that lists show an administrator.

        Note where these, or what bears such a name, are not as described.
        """
        found: dict[str, set[str]] = defaultdict(set)
        gets = "\n".join(path for path, operations in document["paths"].items() if "get" in operations)
        for path, operations in document["paths"].items():
            if "{" not in path and "get" in operations:
                listed: dict[str, set[str]] = defaultdict(set)
                _named(self._described(document, path), listed)
                for name, values in listed.items():
                    found[name] |= values
                self.listed[path] = {name: sorted(values - self.own) for name, values in listed.items()}
                for below, parameter in re.findall(rf"^({path}/{{(\w+)}}[^{{\n]*)$", gets, re.MULTILINE):
                    names = listed[parameter] | listed["name"] | listed["id"]
                    for one in sorted(names)[:_TRIES]:
                        self._described(document, below, {parameter: one})
        self.known = {name: sorted(values - self.own) for name, values in found.items()}

    def _described(
        self, document: Mapping[str, Any], path: str, names: Mapping[str, str] = MappingProxyType({})
    ) -> Any:
        """Return what an administrator reads, and note where it is not as described."""
        reply = self.read(path.format(**{name: quote(value, "") for name, value in names.items()}))
        if reply.status_code != 200 or "json" not in reply.headers["content-type"]:
            return None
        said = document["paths"][path]["get"]["responses"]["200"]["content"]
        schema = said[reply.headers["content-type"].partition(";")[0]]["schema"]
        validator = Draft202012Validator({**schema, "components": document["components"]})
        for error in validator.iter_errors(reply.json()):
            found = f"{names}: {error.instance_path} {error.message[:500]}"
            self.faults.setdefault(f"GET {path}: not as described", found)
        return reply.json()

    def fuzz(
        self,
        document: dict[str, Any],
        *,
        examples: int,
        until: float = float("inf"),
        pages: bool = False,
        both: bool = True,
    ) -> None:
        """Ask each operation `examples` times for a caller drawn anew, or until a time (of `time.monotonic`) comes.

        Args:
            pages: It is of pages, whose answers the document does not describe.
            both: Ask both what the document allows and what it does not, or else one after the other.
        """
        modes = list(schemathesis.GenerationMode)
        for number, found in enumerate(schemathesis.openapi.from_dict(document).get_all_operations()):
            operation = found.ok()
            if operation.path in ENDLESS:
                continue
            bodies = _example_bodies(document, operation.path, operation.method)
            for mode in modes if both else [modes[number % 2]]:
                if time.monotonic() > until:
                    return
                self._ask(operation, mode, examples, pages=pages, bodies=bodies)
            for _ in range(_TRIES):  # what cannot be wrong, or was text that no client can send
                if not self.statuses[f"{operation.method.upper()} {operation.path}"]:
                    self._ask(operation, schemathesis.GenerationMode.POSITIVE, examples, pages=pages)

    def _ask(self, operation: Any, mode: Any, examples: int, *, pages: bool, bodies: Sequence[Any] = ()) -> None:
        callers = [*self.keys, "administrator"]  # who gets behind refusals asks more
        self.seed += 1

        @seed(self.seed)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            who = self.chance.choice(callers)
            self._name(case)
            form = pages and operation.method.upper() == "POST"
            if form:
                case.body, case.media_type = self._form(), "application/x-www-form-urlencoded"
            elif bodies and self.chance.random() < 0.5:
                case.body = self._nearly(self.chance.choice(bodies))
            label = f"{operation.method.upper()} {operation.path}"
            try:
                reply = case.call(base_url=self.url, headers=self.header(who), timeout=60, allow_redirects=False)
            except UnicodeEncodeError:
                return  # no client can send it
            except requests.RequestException as error:
                self.faults.setdefault(f"{label}: no answer", f"as {who}: {error}")
                return
            self.statuses[label][reply.status_code] += 1
            self._judge(label, who, case, reply, pages=pages)

        try:
            ask()
        except Exception as error:
            if "Unsatisfiable" not in type(error).__name__ and "negative" not in str(error):
                raise  # an operation without parameters has nothing that could be wrong

    def _name(self, case: Any) -> None:
        """Put known names into the path, and known and hostile ones into some of the queries."""
        for name in case.path_parameters or {}:
            if self.chance.random() < 0.9:
                case.path_parameters[name] = self.chance.choice(self._below(case.operation.path, name) or ["x"])
        for name in case.query or {}:
            if self.chance.random() < 0.2:
                case.query[name] = self.chance.choice([*_named_so(self.known, name), *HOSTILE])

    def _below(self, path: str, parameter: str) -> list[str]:
        """Return names that the nearest list above a parameter shows; a page's list is that of the API."""
        above = path.partition(f"/{{{parameter}}}")[0]
        while above:
            for place in (above, f"/api{above}"):
                if names := _named_so(self.listed.get(place, {}), parameter):
                    return names
            above = above.rpartition("/")[0]
        return _named_so(self.known, parameter)

    def _nearly(self, body: Any) -> Any:
        """Return a valid body, of which in half of the cases one part is wrong."""
        made = json.loads(json.dumps(body))
        if self.chance.random() < 0.5:
            holder, key = self.chance.choice(list(_places(made)))
            holder[key] = self.chance.choice(_WRONG)
        return made

    def _form(self) -> dict[str, str]:
        chosen = self.chance.sample(_FIELDS, self.chance.randrange(1, 8))
        all_known = [each for values in self.known.values() for each in values]
        values = {
            name: self.chance.choice([*HOSTILE, *self.chance.sample(all_known, min(10, len(all_known)))])
            for name in chosen
        }
        return {**values, "confirm": self.chance.choice(["yes", "yes", "no"])}

    def _judge(self, label: str, who: str, case: Any, reply: Any, *, pages: bool) -> None:
        told = f"as {who}: {case.as_curl_command()[:1500]} -> {reply.status_code} {reply.text[:500]}"
        if not pages:
            try:
                case.validate_response(reply, checks=CHECKS)
            except BaseException as error:
                name = type(getattr(error, "exceptions", [error])[0]).__name__
                self.faults.setdefault(f"{label}: {name} {reply.status_code}", f"{told}\n{str(error)[:700]}")
        else:
            media = next(iter(reply.headers.get("content-type", ())), "").partition(";")[0]
            if reply.status_code >= 500:
                self.faults.setdefault(f"{label}: {reply.status_code}", told)
            if media not in PAGES and not (300 <= reply.status_code < 400):
                self.faults.setdefault(f"{label}: content type {media!r}", told)
            if media == "text/html" and "<script>alert(1)" in reply.text:
                self.faults.setdefault(f"{label}: a script", told)
        if _LEAKS.search(reply.text) or any(each in reply.text for each in self.secret):
            self.faults.setdefault(f"{label}: says too much", told)


def pages_document(routes: Sequence[Any]) -> dict[str, Any]:
    """Return a document of the routes that are in no other: the pages for browsers."""
    shown = [route for route in routes if isinstance(route, APIRoute) and not route.include_in_schema]
    for route in shown:
        assert route.dependant, "analysed now, since that sets what is in the schema"
        route.include_in_schema = True
    made: dict[str, Any] = get_openapi(title="pages", version="1", routes=shown)
    for route in shown:
        route.include_in_schema = False
    return made


def _example_bodies(document: Mapping[str, Any], path: str, method: str) -> list[Any]:
    """Return valid bodies of an operation: those of its schema's examples, or of this module."""
    content = document["paths"][path][method].get("requestBody", {}).get("content", {})
    reference = content.get("application/json", {}).get("schema", {}).get("$ref", "").rpartition("/")[2]
    schema = document.get("components", {}).get("schemas", {}).get(reference, {})
    return schema.get("examples") or (_BODIES.get(path, []) if content else [])


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each part of a document as what holds it, and its name or number there."""
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _named_so(known: Mapping[str, Sequence[str]], parameter: str) -> list[str]:
    """Return known values of a parameter: of its own name, or else those that rows have as an id or a name."""
    names = [parameter, parameter.removesuffix("_id"), "version" if parameter == "number" else "id", "name"]
    return [each for one in dict.fromkeys(names) for each in known.get(one, ())]


def _named(value: Any, found: dict[str, set[str]], key: str = "") -> None:
    if isinstance(value, dict):
        for name, each in value.items():
            _named(each, found, name)
    elif isinstance(value, list):
        for each in value[:200]:
            _named(each, found, key)
    elif isinstance(value, (str, int)) and not isinstance(value, bool) and len(str(value)) <= 128 and str(value):
        found[key].add(str(value))
