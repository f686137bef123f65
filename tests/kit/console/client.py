"""A browser's part of HTTP against an ASGI application in this process: headers, cookies, no redirects followed."""

import asyncio
from typing import Any

import httpx

HOST = "localhost:8081"


class Client:
    def __init__(self, app: Any, key: str | None = None, *, address: str = "127.0.0.1") -> None:
        self.app = app
        self._address = address
        self._headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self.cookies = httpx.Cookies()

    def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        return asyncio.run(self._send(method, path, **options))

    async def _send(self, method: str, path: str, headers: dict[str, str] | None = None, **options: Any):
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False, client=(self._address, 123))
        async with httpx.AsyncClient(
            transport=transport, base_url=f"http://{HOST}", cookies=self.cookies, headers=self._headers
        ) as client:
            response = await client.request(method, path, headers=headers, **options)
            self.cookies = client.cookies
            return response

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self("GET", path, **options)

    def page(self, path: str) -> httpx.Response:
        """Ask as a browser does when a person goes to an address."""
        return self("GET", path, headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
