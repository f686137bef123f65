"""Policies of AWS's IAM in HCL, made of the table of statements."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence

from mainspring.deploy.terraform.statements import Statement, policies

_REFERENCE = re.compile(r"\$\{([^{}]+)\}")
_WIDTH = 110


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
    yield from _comment(made.why)
    if made.every:
        yield from _comment(f"*: {made.every}")
    yield "  statement {"
    fields = {"sid": json.dumps(made.sid), "effect": json.dumps(made.effect) if made.effect != "Allow" else ""}
    fields |= {"actions": values(made.actions), "resources": values(made.resources) if made.resources else ""}
    yield from _attributes({name: text for name, text in fields.items() if text}, 4)
    for kind, who in _principals(made):
        yield f'\n    principals {{\n      type        = "{kind}"\n      identifiers = {who}\n    }}'
    for test, variable, allowed in made.conditions:
        yield "\n    condition {"
        given = {"test": json.dumps(test), "variable": json.dumps(variable), "values": values(allowed, 6)}
        yield from _attributes(given, 6)
        yield "    }"
    yield "  }"


def _attributes(fields: Mapping[str, str], indent: int) -> Iterator[str]:
    """Yield lines as `terraform fmt` aligns them: neighbours of one line each are of one width."""
    for long, group in itertools.groupby(fields.items(), lambda field: "\n" in field[1]):
        lines = list(group)
        width = 0 if long else max(len(name) for name, _ in lines)
        for name, text in lines:
            yield f"{' ' * indent}{name:{width}} = {text}"


def _principals(made: Statement) -> Iterator[tuple[str, str]]:
    if made.anybody:
        yield "*", '["*"]'
    if made.services:
        yield "Service", values(made.services)
    if made.roles or made.accounts:
        accounts = [f"arn:${{local.partition}}:iam::{each}:root" for each in made.accounts]
        yield "AWS", values([*made.roles, *accounts])


def values(texts: Sequence[str], indent: int = 4) -> str:
    """Return a list in HCL of templates; one that is a `for` gives several values."""
    single = [_value(each) for each in texts if not each.startswith("[for ")]
    several = [each for each in texts if each.startswith("[for ")]
    line = f"[{', '.join(single)}]"
    if len(line) + indent > _WIDTH:
        inner = "".join(f"{' ' * (indent + 2)}{each},\n" for each in single)
        line = f"[\n{inner}{' ' * indent}]"
    return f"concat({', '.join([line, *several])})" if several else line


def _value(text: str) -> str:
    whole = _REFERENCE.fullmatch(text)
    return whole[1] if whole else f'"{text}"'


def _comment(text: str) -> Iterator[str]:
    line = "  #"
    for word in text.split():
        if len(line) + len(word) > _WIDTH:
            yield line
            line = "  #"
        line += f" {word}"
    yield line
