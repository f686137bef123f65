"""The asynchronous client, to be tested by what tests the blocking one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from mainspring.client import AsyncClient


class Awaited:
    """`AsyncClient` as if it blocked: what holds for one client must hold for the other."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(*arguments, **named)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(*arguments: Any, **named: Any) -> Any:
            return await getattr(self._client, name)(*arguments, **named)

        return lambda *arguments, **named: self._runner.run(call(*arguments, **named))

    def __enter__(self) -> Awaited:
        return self

    def __exit__(self, *_: Any) -> None:
        self._runner.run(self._client.close())
        self._runner.close()
