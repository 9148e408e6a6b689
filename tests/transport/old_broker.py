"""A broker that knows MQTT 3.1.1 only, or does not know MQTT at all."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class OldBroker:
    """Knows MQTT 3.1.1 only: refuses MQTT 5 with ``answer`` and then hangs up.

    ``None`` leaves the client waiting.
    """

    def __init__(
        self, versions: list[int], answer: bytes | None = b"\x20\x02\x00\x01", every: bool = False
    ) -> None:
        self._versions, self._answer, self._every = versions, answer, every
        self._kept: list[socket.socket] = []

    def __enter__(self) -> int:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        port: int = self._listener.getsockname()[1]
        return port

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for connection in self._kept:
            connection.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._kept.append(connection)
            with suppress(OSError):
                self._answer_to(connection)

    def _answer_to(self, connection: socket.socket) -> None:
        version = connection.recv(1000)[8:9]
        self._versions += version
        if version == b"\x04" and not self._every:
            connection.sendall(b"\x20\x02\x00\x00")
        elif self._answer is not None:
            connection.sendall(self._answer)
            connection.close()
