"""The control plane's side of a broker, over MQTT 3.1.1."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from paho.mqtt.client import Client, MQTTMessage, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from mainspring.core.errors import Denied, Unavailable
from mainspring.core.ids import new_id
from mainspring.core.renewed_tls import client_context
from mainspring.core.settings import Url
from mainspring.deploy.fleet.model import DEVICE_ID_PATTERN
from mainspring.deploy.fleet.ports import Arrived

_PATIENCE_S = 10.0
_STEP_S = 0.02
_MOST_WAITING = 20_000  # of reports between two polls; devices report again
_AT_ONCE = 200  # desired states under way


class MqttMessages:
    """`Messages`. The address is `mqtts://user:password@host:port?ca=FILE&cert=FILE&key=FILE`."""

    def __init__(self, url: Url, project: str, *, name: str = "control") -> None:
        self._url, self._project, self._prefix, self._name = url, project, f"mainspring/{project}", name
        self._topic = re.compile(rf"{re.escape(self._prefix)}/({DEVICE_ID_PATTERN})/reported")
        self._client: Client | None = None
        self._session, self._arrived, self._problem = 0, list[Arrived](), ""

    @property
    def session(self) -> int:
        return self._session

    def poll(self, wait_s: float = 0.0) -> list[Arrived]:
        self._connected()
        end = time.monotonic() + wait_s
        while not self._arrived and time.monotonic() < end:
            time.sleep(_STEP_S)
        count = len(self._arrived)  # the client's thread appends meanwhile
        found, self._arrived[:count] = self._arrived[:count], []
        return found

    def send(self, desired: Mapping[str, bytes]) -> None:
        client, under_way = self._connected(), list[Any]()
        for device, message in desired.items():
            under_way.append(client.publish(f"{self._prefix}/{device}/desired", message, qos=1, retain=True))
            if len(under_way) >= _AT_ONCE:
                self._wait(under_way)
                under_way.clear()
        self._wait(under_way)

    def check(self) -> None:
        beside = MqttMessages(self._url, self._project, name=f"check-{new_id()}")  # of one name, only one is connected
        try:
            beside._connected()
        finally:
            beside.close()

    def close(self) -> None:
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None

    def _wait(self, under_way: list[Any]) -> None:
        end = time.monotonic() + _PATIENCE_S
        for each in under_way:
            try:
                each.wait_for_publish(max(0.0, end - time.monotonic()))
            except (RuntimeError, ValueError) as error:
                raise self._away(str(error)) from None
            if not each.is_published():
                raise self._away("it does not acknowledge messages")

    def _connected(self) -> Client:
        if self._client is not None and self._client.is_connected():
            return self._client
        if self._client is None:
            self._client = self._begin()
        end = time.monotonic() + _PATIENCE_S
        while not self._client.is_connected():
            if self._problem or time.monotonic() > end:
                problem, self._problem = self._problem or "it does not answer", ""
                self.close()
                if "authori" in problem.lower() or "password" in problem.lower():
                    raise Denied(
                        f"The broker {self._url.shown} refuses the project: {problem}.",
                        fix="set MAINSPRING_FLEET to mqtts://user:password@host:port.",
                    )
                raise self._away(problem)
            time.sleep(_STEP_S)
        return self._client

    def _begin(self) -> Client:
        parts = urlsplit(self._url.text)
        files = {name: values[0] for name, values in parse_qs(parts.query).items()}
        client = Client(CallbackAPIVersion.VERSION2, client_id=f"{self._prefix}/{self._name}", protocol=MQTTv311)
        if parts.username:
            client.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
        if parts.scheme == "mqtts":
            client.tls_set_context(client_context(*(files.get(each) for each in ("ca", "cert", "key"))))
        client.max_inflight_messages_set(_AT_ONCE)
        client.on_connect, client.on_message = self._greeted, self._received
        try:
            client.connect(parts.hostname or "127.0.0.1", parts.port or (8883 if parts.scheme == "mqtts" else 1883))
        except (OSError, ValueError) as error:
            raise self._away(str(error)) from None
        client.loop_start()
        return client

    def _greeted(self, client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._problem = str(reason)
            return
        self._session += 1
        client.subscribe(f"{self._prefix}/+/reported", qos=1)

    def _received(self, _client: Any, _data: Any, message: MQTTMessage) -> None:
        found = self._topic.fullmatch(message.topic)
        if found is not None and len(self._arrived) < _MOST_WAITING:
            self._arrived.append(Arrived(found[1], message.payload, bool(message.retain)))

    def _away(self, problem: str) -> Unavailable:
        return Unavailable(
            f"The broker {self._url.shown} cannot be used: {problem}.", fix="check `fleet` in the profile."
        )
