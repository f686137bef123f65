"""Policies of AWS's IAM in HCL, made of the table of statements."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from mainspring.deploy.terraform.hcl import attributes, comment, values
from mainspring.deploy.terraform.statements import Statement, policies


def iam_text(found: Sequence[Statement]) -> str:
    """Return the file with the documents of all policies."""
    documents = ("\n".join(_document(name, each)) for name, each in policies(found).items())
    return "# Policies, made of the table that iam.md shows.\n\n" + "\n\n".join(documents) + "\n"


def _document(name: str, found: Sequence[Statement]) -> Iterator[str]:
    yield f'data "aws_iam_policy_document" "{name}" {{'
    if found[0].when:
        yield f"  count = {found[0].when} ? 1 : 0\n"
    for number, each in enumerate(found):
        if number:
            yield ""
        yield from _statement(each)
    yield "}"


def _statement(made: Statement) -> Iterator[str]:
    yield from comment(made.why)
    if made.every:
        yield from comment(f"*: {made.every}")
    yield "  statement {"
    fields = {"sid": json.dumps(made.sid), "effect": json.dumps(made.effect) if made.effect != "Allow" else ""}
    fields |= {"actions": values(made.actions), "resources": values(made.resources) if made.resources else ""}
    yield from attributes({name: text for name, text in fields.items() if text}, 4)
    for kind, who in _principals(made):
        yield f'\n    principals {{\n      type        = "{kind}"\n      identifiers = {who}\n    }}'
    for test, variable, allowed in made.conditions:
        yield "\n    condition {"
        given = {"test": json.dumps(test), "variable": json.dumps(variable), "values": values(allowed, 6)}
        yield from attributes(given, 6)
        yield "    }"
    yield "  }"


def _principals(made: Statement) -> Iterator[tuple[str, str]]:
    if made.anybody:
        yield "*", '["*"]'
    if made.services:
        yield "Service", values(made.services)
    if made.roles or made.accounts:
        accounts = [f"arn:${{local.partition}}:iam::{each}:root" for each in made.accounts]
        yield "AWS", values([*made.roles, *accounts])
