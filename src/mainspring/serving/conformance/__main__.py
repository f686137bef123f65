"""`python -m mainspring.serving.conformance URL`: how far a server follows the Open Inference Protocol over HTTP.

Exit codes: 0 where nothing failed, 1 where something did, 2 where the server or its model could not be examined.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from mainspring.serving.conformance import extensions, inference, metadata, refusals
from mainspring.serving.conformance.check import examine
from mainspring.serving.conformance.report import as_json, table
from mainspring.serving.conformance.results import Failed, Result
from mainspring.serving.conformance.subject import Subject
from mainspring.serving.conformance.wire import Http

GROUPS = (
    ("Health and metadata", metadata.CHECKS),
    ("Inference", inference.CHECKS),
    ("Refusals", refusals.CHECKS),
    ("Extensions", extensions.CHECKS),
)


def main(arguments: list[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    try:
        headers = dict(_header(text) for text in asked.header)
        given = json.loads(Path(asked.request).read_bytes()) if asked.request else None
        http = Http(asked.url, headers, timeout_s=asked.timeout)
        model = asked.model or _only_model(http)
        subject = Subject(http, model, given)
        groups = [(title, examine(subject, checks)) for title, checks in GROUPS]
    except (OSError, ValueError, Failed) as error:
        print(f"{asked.url} cannot be examined: {error}", file=sys.stderr)  # noqa: T201
        return 2
    outcomes = [outcome for _, found in groups for outcome in found]
    print(as_json(asked.url, model, outcomes) if asked.json else table(groups))  # noqa: T201
    return 1 if any(outcome.result is Result.FAIL for outcome in outcomes) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mainspring.serving.conformance",
        description="Examine a server of the Open Inference Protocol (V2) over HTTP.",
    )
    parser.add_argument("url", help="http://host:port, with the path that /v2 stands under, if any")
    parser.add_argument("--model", help="which one; without it, the first that the server's repository index names")
    parser.add_argument("--header", action="append", default=[], metavar="'NAME: VALUE'", help="sent along, repeatable")
    parser.add_argument("--request", metavar="FILE", help="a JSON inference request, where metadata does not suffice")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="for each answer; 30")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    return parser


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise ValueError(f"the header {text!r} is not written as 'Name: value'")
    return name.strip(), value.strip()


def _only_model(http: Http) -> str:
    answer = http.ask("POST", "/v2/repository/index", b"{}", {"content-type": "application/json"})
    found = answer.json() if answer.ok else []
    for each in found:
        if each.get("state", "READY") == "READY":
            return str(each["name"])
    raise ValueError(f"its repository index answered {answer.status} and names no model; say --model")


if __name__ == "__main__":
    sys.exit(main())
