"""A headless Chromium, driven over the DevTools protocol (https://chromedevtools.github.io/devtools-protocol)."""

import base64
import json
import os
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import websocket

PROGRAM = Path("/usr/bin/chromium")
# What a module of such tests says as its `pytestmark`. With CI=true a browser that is missing is a failure.
DRIVEN = [
    pytest.mark.chromium,
    pytest.mark.skipif(not PROGRAM.exists() and os.environ.get("CI") != "true", reason=f"{PROGRAM} is not installed"),
]
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)


@contextmanager
def browser(profile: Path) -> Iterator["Browser"]:
    """Start a Chromium with its own profile folder, and stop it afterwards."""
    command = [str(PROGRAM), *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            running = Browser(_address(process))
            yield running
            running.close()
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def _address(process: subprocess.Popen[str]) -> str:
    said = []
    for line in process.stderr or ():
        said.append(line)
        if line.startswith("DevTools listening on "):
            return line.removeprefix("DevTools listening on ").strip()
    raise RuntimeError("Chromium did not start:\n" + "".join(said))


class Browser:
    def __init__(self, address: str) -> None:
        self._socket = websocket.create_connection(address, timeout=60)
        self._sent = 0
        self.pages: dict[str, Page] = {}

    def close(self) -> None:
        self._socket.close()

    def page(self, *, width: int = 1280, height: int = 900, scripts: bool = True, dark: bool = False) -> "Page":
        """Open a page of this size."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self.pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        page.show(width=width, height=height, dark=dark)
        return page

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._sent += 1
        number = self._sent
        message = {"id": number, "method": method, "params": params}
        self._socket.send(json.dumps(message if session is None else {**message, "sessionId": session}))
        while True:
            answer = self.receive()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def receive(self) -> dict[str, Any]:
        message = json.loads(self._socket.recv())
        page = self.pages.get(message.get("sessionId", ""))
        if page is not None and "method" in message:
            page.events.append((message["method"], message["params"]))
        return message


class Page:
    """One page: what it asked for and complained about is kept in `requests` and `complaints`."""

    def __init__(self, owner: Browser, session: str) -> None:
        self._browser = owner
        self._session = session
        self.events: deque[tuple[str, dict[str, Any]]] = deque()
        self.seen: list[tuple[str, dict[str, Any]]] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **params)

    def show(self, *, width: int, height: int = 900, dark: bool) -> None:
        """Show the page, also one that has loaded, on a screen of this size and in this colour scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[theme])

    def wait(self, event: str) -> dict[str, Any]:
        """Return the next event of this name."""
        while True:
            while self.events:
                name, params = self.events.popleft()
                self.seen.append((name, params))
                if name == event:
                    return params
            self._browser.receive()

    def go(self, url: str) -> None:
        """Go to an address and wait until the page has loaded."""
        self.call("Page.navigate", url=url)
        self.wait("Page.loadEventFired")

    def do(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def until(self, expression: str) -> None:
        """Return once the expression is true."""
        deadline = time.monotonic() + 20
        while not self.do(f"!!({expression})"):
            if time.monotonic() > deadline:
                raise TimeoutError(expression)
            self.do("new Promise((done) => requestAnimationFrame(done))")

    def text(self) -> str:
        """Return the page's text as a person would read it, also where scripts do not run."""
        root = self.call("DOM.getDocument", depth=0)["root"]["nodeId"]
        body = self.call("DOM.querySelector", nodeId=root, selector="main")["nodeId"]
        return self.call("DOM.getOuterHTML", nodeId=body)["outerHTML"]

    def screenshot(self, path: Path) -> None:
        """Keep the whole page as a PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(answer["data"]))

    def _of(self, name: str) -> list[dict[str, Any]]:
        return [params for method, params in (*self.seen, *self.events) if method == name]

    @property
    def requests(self) -> list[str]:
        return [each["request"]["url"] for each in self._of("Network.requestWillBeSent")]

    @property
    def complaints(self) -> list[str]:
        """Uncaught exceptions, console errors, and what the browser logged: blocked styles, failed loads."""
        thrown = [each["exceptionDetails"]["text"] for each in self._of("Runtime.exceptionThrown")]
        said = [
            str(each["args"]) for each in self._of("Runtime.consoleAPICalled") if each["type"] in ("error", "warning")
        ]
        logged = [f"{each['entry']['text']} {each['entry'].get('url')}" for each in self._of("Log.entryAdded")]
        return [*thrown, *said, *logged]
