"""What is between a client and a server: a proxy that counts bytes and cuts connections."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Wire:
    """Forwards TCP connections to a port of this machine.

    Attributes:
        down: Bytes from the server so far.
        cuts: Connections that were cut.
        cut_after: Bytes from the server after which each connection is cut; ``None`` for never.
        cut_after_up: The same for bytes to the server.
        cuts_left: How many connections are to be cut.
        rate: Bytes per second of each connection; ``None`` for all there are.
    """

    def __init__(self, port: int) -> None:
        self.down = 0
        self.cuts = 0
        self.cut_after: int | None = None
        self.cut_after_up: int | None = None
        self.cuts_left = 0
        self.rate: float | None = None
        self._server_port = port
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def host(self) -> str:
        """``127.0.0.1:port``."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        """Ends all connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()
        for thread in self._threads:
            thread.join()

    def hang_up(self) -> None:
        """Cuts all connections there are; new ones are let through."""
        with self._lock:
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self._server_port))
            except OSError:
                return
            with self._lock:
                self._open |= {client, server}
            for one, other, down in ((client, server, False), (server, client, True)):
                thread = threading.Thread(target=self._forward, args=(one, other, down))
                self._threads.append(thread)
                thread.start()

    def _forward(self, one: socket.socket, other: socket.socket, down: bool) -> None:
        count = 0
        with contextlib.suppress(OSError):
            while data := one.recv(16 * 1024):
                count += len(data)
                if self._cuts(count, down):
                    break
                if self.rate:
                    time.sleep(len(data) / self.rate)
                other.sendall(data)
                if down:
                    with self._lock:
                        self.down += len(data)
        with self._lock:
            self._open -= {one}
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        one.close()

    def _cuts(self, count: int, down: bool) -> bool:
        limit = self.cut_after if down else self.cut_after_up
        with self._lock:
            if limit is None or count < limit or not self.cuts_left:
                return False
            self.cuts_left -= 1
            self.cuts += 1
            return True


@contextmanager
def wire_to(port: int) -> Iterator[Wire]:
    """A proxy before a server's port."""
    wire = Wire(port)
    try:
        yield wire
    finally:
        wire.close()
