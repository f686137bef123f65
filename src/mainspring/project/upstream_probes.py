"""Checks of upstreams of language models: does one answer, with our key, and which models it lists."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from mainspring.core.settings import UpstreamServer
from mainspring.project.place_checks import Outcome


def upstream(server: UpstreamServer) -> Iterator[Outcome]:
    """Ask for the list of models, for two seconds. It costs nothing.

    Raises:
        Invalid: The key or a certificate cannot be read.
    """
    from mainspring.llm.model import UpstreamError

    try:
        names = asyncio.run(_models(server))
    except UpstreamError as error:
        yield from _failed(error.kind, error.what)
    else:
        yield Outcome("reachable", True, "answers")
        yield Outcome("models", True, f"it lists {len(names)}")


def _failed(kind: str, what: str) -> Iterator[Outcome]:
    if kind == "denied":
        yield Outcome("reachable", True, "answers")
        yield Outcome("key", False, what, "correct the key, or what it may do there")
    elif kind in ("missing", "refused", "limited"):
        told = "it has no capacity for us now" if kind == "limited" else "it has no list of models"
        yield Outcome("reachable", True, f"answers; {told}")
    else:
        yield Outcome("reachable", False, what, "start the server, or correct its url in the profile")


async def _models(server: UpstreamServer) -> tuple[str, ...]:
    from mainspring.project.language_models import build_upstream

    made = build_upstream(server)
    try:
        return await made.models()
    finally:
        await made.close()
