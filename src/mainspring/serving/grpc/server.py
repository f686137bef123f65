"""The gRPC server on this event loop, its limits, and a clean end at SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from typing import Any

import grpc

from mainspring.core.errors import Conflict
from mainspring.core.listening import check_free
from mainspring.core.settings import Address, Limits, Tls
from mainspring.security.renewal import Renewing
from mainspring.serving.grpc.service import Service
from mainspring.serving.plane.slots import Slots

_PRELOAD_S = 20.0
_METADATA_BYTES = 16 * 1024
_STREAMS = 256  # calls at once over one connection
_HANDSHAKE_MS = 10_000
_PING_EVERY_MS, _PING_TIMEOUT_MS = 60_000, 20_000  # to a silent connection with calls: is the other side there?
_PINGED_EVERY_MS = 10_000  # a client that pings oftener is turned away

_log = logging.getLogger(__name__)


def options(limits: Limits, max_message_bytes: int, *, shared: bool = False) -> list[tuple[str, Any]]:
    """Return gRPC's channel arguments. `shared`: whether other processes may listen on the same address.

    https://grpc.github.io/grpc/core/group__grpc__arg__keys.html
    """
    return [
        # Two servers on one port would both answer: see docs/adr/0008-supervisor-and-death.md.
        ("grpc.so_reuseport", int(shared)),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_metadata_size", _METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
        ("grpc.max_concurrent_streams", _STREAMS),
        ("grpc.max_connection_idle_ms", limits.idle_us // 1000),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
        ("grpc.keepalive_time_ms", _PING_EVERY_MS),
        ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_MS),
        ("grpc.http2.min_ping_interval_without_data_ms", _PINGED_EVERY_MS),
    ]


async def serve(
    service: Service,
    address: Address,
    *,
    limits: Limits | None = None,
    max_message_bytes: int,
    credentials: grpc.ServerCredentials | None = None,
    slots: Slots | None = None,
    shared: bool = False,
    stop: asyncio.Event | None = None,
    started: Callable[[], None] | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or `stop`; then answer what is in flight, within the limits, and return.

    Nobody is answered before the routing table's bundles are loaded and warm, or it turned out that they cannot be.

    Args:
        limits: `connections` is how many calls may run at once.
        max_message_bytes: The largest message, also after decompression.
        credentials: For TLS; without them in clear.
        slots: This process's place among those whose metrics are scraped together.
        shared: Whether other processes serve the same address, which somebody keeps for them (`core.listening.hold`).
        started: Called once calls are answered.

    Raises:
        Conflict: The address is taken.
    """
    limits = limits or Limits()
    if not shared:
        check_free(address, "grpc")
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    stopping = loop.create_task(stop.wait())
    server = grpc.aio.server(
        options=options(limits, max_message_bytes, shared=shared), maximum_concurrent_rpcs=limits.connections
    )
    server.add_generic_rpc_handlers(service.handlers())
    service.plane.start()
    try:
        if not shared:
            _listen(server, address, credentials)
        preloading = loop.create_task(service.plane.preloaded())
        await asyncio.wait((preloading, stopping), timeout=_PRELOAD_S, return_when=asyncio.FIRST_COMPLETED)
        preloading.cancel()
        if shared:  # not before: the kernel gives connections to whoever listens
            _listen(server, address, credentials)
        await server.start()
        if slots is not None:
            await slots.start(service.plane.metrics.text, lambda: service.plane.unready() is None)
        if started is not None:
            started()
        await stopping
        service.drain()
        await server.stop(limits.drain_us / 1e6)
    finally:
        await server.stop(0)
        stopping.cancel()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        if slots is not None:
            await slots.stop()
        await service.plane.stop()


def _listen(server: Any, address: Address, credentials: grpc.ServerCredentials | None) -> None:
    host = f"[{address.host}]" if ":" in address.host else address.host
    place = f"{host}:{address.port}"
    try:
        if credentials is None:
            server.add_insecure_port(place)
        else:
            server.add_secure_port(place, credentials)
    except RuntimeError as error:
        raise Conflict(f"Cannot listen on {place}: {error}.", fix="choose another address for grpc.") from error


def credentials(tls: Tls) -> grpc.ServerCredentials:
    """Return what `serve` needs for TLS; where `tls` names authorities, callers must show a certificate of theirs.

    Files that changed are loaded with the next connection. For the version of TLS see `processes.grpc.refuse_tls_1_2`.

    Raises:
        Invalid: A file cannot be served with; see `security.tls.check`.
    """
    certificate = Renewing(tls, _loaded)

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        return certificate.current if certificate.look() else None

    return grpc.dynamic_ssl_server_credentials(
        certificate.current, renewed, require_client_authentication=tls.client_ca is not None
    )


def _loaded(tls: Tls) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(tls.key.read_bytes(), tls.cert.read_bytes())],
        root_certificates=tls.client_ca.read_bytes() if tls.client_ca else None,
    )
