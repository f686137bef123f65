"""Signed calls of tools: the id of a call says that a model asked for it, for this caller, with these arguments.

A caller sends calls back with their results. Of one whose id has no valid code nobody knows whether a model asked for
it: its arguments and its result are a stranger's. The code is of 60 bits, and to try one takes a request. It is bound
to the caller's account and not to a conversation, which callers may shorten: a call can come back in another one.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from typing import Any

from mainspring.llm.guarding.calls import parsed
from mainspring.llm.model import ToolCall

_CODE = 10  # characters of 6 bits: an id of OpenAI's has 40 with it, as many as OpenAI takes
_RANDOM = 18  # bytes of an id where the upstream gives none


class Signer:
    """Signer of the calls of one language model.

    Args:
        key: Of the installation.
    """

    def __init__(self, key: bytes, model: str) -> None:
        self._key = hmac.digest(key, f"calls of tools of {model}".encode(), "sha256")

    def sign(self, id_: str, name: str, arguments: str, owner: str) -> str:
        """Return the id of a call for its caller.

        Args:
            id_: The upstream's; empty where it gave none.
            owner: Whose call it is (`Call.owner`).
        """
        id_ = id_ or f"call_{secrets.token_urlsafe(_RANDOM)}"
        return f"{id_}_{self._code(id_, name, arguments, owner)}"

    def original(self, call: ToolCall, owner: str) -> str | None:
        """Return the upstream's id of a call that came back; `None` where it did not leave like this."""
        id_, mark, code = call.id[: -_CODE - 1], call.id[-_CODE - 1 : -_CODE], call.id[-_CODE:]
        if not id_ or mark != "_" or not code.isascii():
            return None
        return id_ if hmac.compare_digest(code, self._code(id_, call.name, call.arguments, owner)) else None

    def _code(self, id_: str, name: str, arguments: str, owner: str) -> str:
        of = json.dumps([owner, id_, name, _plain(parsed(arguments))], sort_keys=True)
        return base64.urlsafe_b64encode(hmac.digest(self._key, of.encode(), "sha256"))[:_CODE].decode()


def _plain(value: Any) -> Any:
    """Return a JSON value as clients may write it again: 1.0 is 1."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
