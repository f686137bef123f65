"""Calls of AWS: its errors become ours. Credentials come as with AWS's own tools."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from mainspring.core.errors import Conflict, Denied, Invalid, Unavailable

_ABSENT = ("could not find", "does not exist", "not found", "no scalable target")
_DENIED = ("AccessDenied", "Unrecognized", "Signature", "Token", "Incomplete", "OptInRequired", "AuthFailure")

Answer = dict[str, Any]


class Absent(Exception):
    """The resource that a call names does not exist."""


def asked(call: Callable[..., Any], **arguments: Any) -> Answer:
    """Call AWS.

    Raises:
        Invalid, Denied, Conflict, Unavailable: As it answers.
        Absent: What is named is not there.
    """
    try:
        answer: Answer = call(**arguments)
    except ParamValidationError as error:
        raise Invalid(f"AWS would refuse this: {error}", fix="correct the target's options.") from error
    except ClientError as error:
        raise _told(error) from error
    except BotoCoreError as error:
        if "redential" in type(error).__name__:
            fix = "log in as AWS's own tools do (`aws configure`, a role, variables)."
            raise Denied(f"There are no credentials for AWS: {error}", authenticated=True, fix=fix) from error
        raise Unavailable(f"AWS does not answer: {error}", fix="see the network and the region.") from error
    return answer


def _told(error: ClientError) -> Exception:
    code, said = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
    what = f"AWS answers {error.operation_name} with {code}: {said[:500].rstrip('.')}."
    if "NotFound" in code or (code == "ValidationException" and any(each in said.lower() for each in _ABSENT)):
        return Absent(said)
    if any(code.startswith(each) or each in code for each in _DENIED):
        return Denied(what, authenticated=True, fix="docs/howto/sagemaker.md lists the rights that are needed.")
    if code in ("ResourceLimitExceeded", "ValidationException", "ValidationError", "LimitExceededException"):
        return Invalid(
            what, fix="correct the target; `mainspring deploy TARGET --dry-run` lists what is known to lack."
        )
    if code in ("ResourceInUse", "ConflictException", "ConcurrentUpdateException"):
        return Conflict(what, fix="deploy again once that is done.")
    return Unavailable(what, fix="deploy again.")


def pages(client: Any, name: str, **arguments: Any) -> Iterator[Answer]:
    """Yield the pages of a list. Raises as `asked`."""
    found = iter(client.get_paginator(name).paginate(**arguments))
    while page := asked(lambda: next(found, {})):
        yield page
