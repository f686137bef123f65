"""The page of rights: for each statement of a module's policies, its reason and the code that needs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mainspring.deploy.terraform.statements import Statement, policies

# Holder of each policy.
HOLDERS = {
    "tasks": "Who may take the roles of the processes, and of their start",
    "flow_logs": "Who may take the role of the network's log",
    "gateway": "The gateway's code",
    "worker": "The worker's and the console's code",
    "gateway_start": "ECS, while it starts a gateway",
    "worker_start": "ECS, while it starts the worker",
    "network": "The network's log of refused connections",
    "files": "Policy of the worker's files",
    "bucket": "Policy of the bucket",
    "bucket_endpoint": "The network's way to S3",
    "endpoints": "The network's way to other services",
    "stores_key": "Policy of the key of stores",
    "master_key": "Policy of Mainspring's master key",
}


def table_text(found: Sequence[Statement]) -> str:
    """Return the statements of each policy in Markdown."""
    return "\n".join(line for name, each in policies(found).items() for line in _policy(name, each))


def _policy(name: str, found: Sequence[Statement]) -> Iterator[str]:
    yield f"## {HOLDERS[name]}: `{name}`\n"
    for each in found:
        yield f"### {each.sid}\n"
        yield each.why + "\n"
        if each.every:
            yield f"`*`: {each.every}\n"
        yield f"- {'refuses' if each.effect == 'Deny' else 'allows'}: {_codes(each.actions)}"
        if each.resources:
            yield f"- to: {_codes(each.resources)}"
        if who := _principals(each):
            yield f"- for: {who}"
        for test, variable, values in each.conditions:
            yield f"- if: `{variable}` {test} {_codes(values)}"
        yield f"- needed by: {_codes(each.code)}\n"


def _principals(made: Statement) -> str:
    accounts = [f"account {each}" for each in made.accounts]
    return "everybody" if made.anybody else _codes([*made.services, *made.roles, *accounts])


def _codes(texts: Sequence[str]) -> str:
    return ", ".join(f"`{each}`" for each in texts)
