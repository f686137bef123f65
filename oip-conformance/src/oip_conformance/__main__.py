"""`oip-conformance URL`: how far a server follows the Open Inference Protocol, over HTTP or gRPC.

Exit codes: 0 if nothing failed, 1 if something did, 2 if the server or its model could not be examined.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from oip_conformance.check import Check, Failed, Result, examine
from oip_conformance.report import as_json, table
from oip_conformance.subject import Subject

Groups = Sequence[tuple[str, Sequence[Check]]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    asked = _parser().parse_args(arguments)
    try:
        subject, groups = _subject(asked)
        found = [(title, examine(subject, checks)) for title, checks in groups]
    except (OSError, ValueError, Failed) as error:
        print(f"{asked.url} cannot be examined: {error}", file=sys.stderr)
        return 2
    outcomes = [outcome for _, each in found for outcome in each]
    print(as_json(asked.url, subject.model, outcomes) if asked.json else table(found))
    return 1 if any(outcome.result is Result.FAIL for outcome in outcomes) else 0


def _subject(asked: argparse.Namespace) -> tuple[Subject, Groups]:
    """Return what to examine, and by which checks."""
    headers = dict(_header(text) for text in asked.header)
    given = json.loads(Path(asked.request).read_bytes()) if asked.request else None
    if asked.url.startswith(("grpc://", "grpcs://")):
        try:
            from oip_conformance.grpc_checks import GROUPS
            from oip_conformance.grpc_subject import GrpcSubject
        except ImportError as error:
            raise ValueError(f"{error}; gRPC needs `pip install 'oip-conformance[grpc]'`") from None
        return GrpcSubject(asked.url, asked.model, given, headers=headers, timeout_s=asked.timeout), GROUPS
    from oip_conformance import extensions, inference, metadata, refusals
    from oip_conformance.http_subject import Http, HttpSubject

    return HttpSubject(Http(asked.url, headers, timeout_s=asked.timeout), asked.model, given), (
        ("Health and metadata", metadata.CHECKS),
        ("Inference", inference.CHECKS),
        ("Refusals", refusals.CHECKS),
        ("Extensions", extensions.CHECKS),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="oip-conformance", description="Examine a server of the Open Inference Protocol (V2)."
    )
    parser.add_argument(
        "url", help="http://host:port, with the path that /v2 stands under, if any; or grpc://host:port"
    )
    parser.add_argument("--model", default="", help="over HTTP by default the first of the server's repository index")
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


if __name__ == "__main__":
    sys.exit(main())
