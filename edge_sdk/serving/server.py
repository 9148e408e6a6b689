"""The local HTTP API, served in a thread beside whatever else a process does."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

from edge_sdk.errors import ConfigError, MissingEngineError

if TYPE_CHECKING:
    import uvicorn

    from edge_sdk.serving.router import Router

GRACE_S = 5
"""Seconds that answers may still take when the server is stopped."""


class Running:
    """A server that runs.

    Attributes:
        host: The address that it listens on.
        port: Its port.
    """

    def __init__(self, server: uvicorn.Server, listener: socket.socket) -> None:
        self.host, self.port = listener.getsockname()[:2]
        self._server = server
        self._thread = threading.Thread(
            target=server.run, args=([listener],), name="local API", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Takes no more requests, and returns when those that have begun have ended.

        What takes longer than :data:`GRACE_S` is broken off.
        """
        self._server.should_exit = True
        self._thread.join()


def serve(router: Router, host: str = "127.0.0.1", port: int = 0) -> Running:
    """Serves the local API; it answers when this returns.

    Args:
        router: What is served.
        host: Address to listen on; anybody who reaches it may use the models.
        port: Port to listen on; any free one by default.

    Raises:
        ConfigError: The address cannot be listened on.
        MissingEngineError: The extra ``serve`` is not installed.
    """
    try:
        import uvicorn

        from edge_sdk.serving.app import app
    except ImportError as error:
        raise MissingEngineError(
            f"the local API needs {error.name}", remedy="pip install 'edge-sdk[serve]'"
        ) from error
    config = uvicorn.Config(
        app(router),
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    return Running(uvicorn.Server(config), listen(host, port))


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens already; port 0 is any free one.

    Raises:
        ConfigError: The address cannot be listened on.
    """
    try:
        if not 0 <= port < 2**16:
            raise OSError("a port is a number from 0 to 65535")
        [(family, *_, address), *_] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        # It listens from now on, so that nobody is refused while the server starts.
        listener = socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as error:
        raise ConfigError(
            f"cannot listen there: {error.strerror or error}",
            where=f"{host}:{port}",
            remedy="stop what listens there, or choose another address or port",
        ) from error
    # Connections inherit it. asyncio sets it only where it made the socket itself, and
    # without it every answer waits for the acknowledgement of its headers: 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
