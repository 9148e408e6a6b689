"""Debian's docker-registry on free ports, with the kinds of authorization there are."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import urllib3

from edge_sdk.transport.credentials import Credentials
from tests.brokers import Certificates, free_port
from tests.programs import require

PATIENCE = 20.0  # seconds; a registry is there in a tenth of one
USER = Credentials("device", "secret")
# What `htpasswd -nbB device secret` prints: docker-registry takes nothing but bcrypt.
HTPASSWD = "device:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"


class TokenServer:
    """Gives docker-registry's bearer tokens to who knows the password.

    Attributes:
        folder: Holds ``token.crt``, which the registry is told to trust.
        scopes: What was asked for.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scopes: list[str] = []
        self._openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tokens",
            "-keyout", "token.key", "-out", "token.crt",
        )  # fmt: skip
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                allowed = self.headers.get("Authorization") == USER.basic
                query = parse_qs(urlsplit(self.path).query)
                outer.scopes += query["scope"]
                token = outer.token(query["scope"][0], query["service"][0]) if allowed else ""
                body = json.dumps({"token": token}).encode()
                self.send_response(200 if allowed else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def realm(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/token"

    def token(self, scope: str, service: str) -> str:
        """A JSON Web Token, RS256, with its certificate inside."""
        certificate = "".join((self.folder / "token.crt").read_text().split("\n")[1:-2])
        kind, name, actions = scope.split(":")
        now = int(time.time())
        access = [{"type": kind, "name": name, "actions": actions.split(",")}]
        times = {"nbf": now - 10, "iat": now, "exp": now + 300}
        claims = {"iss": "tests", "sub": USER.user, "aud": service, "access": access, **times}
        header = {"typ": "JWT", "alg": "RS256", "x5c": [certificate]}
        text = ".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
        signature = self._openssl("dgst", "-sha256", "-sign", "token.key", stdin=text.encode())
        return f"{text}.{_base64(signature)}"

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _openssl(self, *arguments: str, stdin: bytes = b"") -> bytes:
        command = ["openssl", *arguments]
        done = subprocess.run(
            command, cwd=self.folder, check=True, capture_output=True, input=stdin
        )
        return done.stdout


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@dataclass
class Registry:
    """A docker-registry with its own folder.

    Attributes:
        folder: Configuration, log and blobs.
        password: Whether it asks for :data:`USER` by basic authorization.
        tokens: Where it sends clients for bearer tokens.
        certificates: For HTTPS.
        port: Where it listens, on 127.0.0.1.
    """

    folder: Path
    password: bool = False
    tokens: TokenServer | None = None
    certificates: Certificates | None = None
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[str]:
        """``METHOD path status`` of every request so far."""
        lines = (self.folder / "log").read_text().splitlines()
        found = [line.split('"') for line in lines if "HTTP/1." in line and line.count('"') >= 6]
        return [f"{parts[1].rsplit(' ', 1)[0]} {parts[2].split()[0]}" for parts in found]

    def start(self) -> None:
        """Starts it and waits until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "htpasswd").write_text(HTPASSWD)
        (self.folder / "config.json").write_text(json.dumps(self._configuration()))  # is YAML too
        program = require("docker-registry", "docker-registry")
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "serve", "config.json"], cwd=self.folder, stdout=log, stderr=log
            )
        scheme = "https" if self.certificates else "http"
        trusted = {"ca_certs": str(self.certificates.ca)} if self.certificates else {}
        with urllib3.PoolManager(retries=False, **trusted) as http:
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    http.request("GET", f"{scheme}://{self.host}/v2/")
                    return
                except urllib3.exceptions.HTTPError:
                    if self._process.poll() is not None or time.monotonic() > deadline:
                        self.stop()
                        pytest.fail((self.folder / "log").read_text())
                    time.sleep(0.01)

    def stop(self) -> None:
        """Ends it; its blobs stay."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def blob(self, digest: str) -> Path:
        """The file in which it keeps a blob."""
        hex_digits = digest.removeprefix("sha256:")
        blobs = self.folder / "data/docker/registry/v2/blobs/sha256"
        return blobs / hex_digits[:2] / hex_digits / "data"

    def _configuration(self) -> dict[str, object]:
        http: dict[str, object] = {"addr": self.host, "net": "tcp", "secret": "tests"}
        if self.certificates:
            folder = self.certificates.folder
            http["tls"] = {
                "certificate": str(folder / "server.crt"),
                "key": str(folder / "server.key"),
            }
        auth: dict[str, object] = {}
        if self.password:
            auth["htpasswd"] = {"realm": "tests", "path": "htpasswd"}
        if self.tokens:
            auth["token"] = {
                "realm": self.tokens.realm,
                "service": "registry",
                "issuer": "tests",
                "rootcertbundle": str(self.tokens.folder / "token.crt"),
            }
        return {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": False}},
            "storage": {"filesystem": {"rootdirectory": "data"}},
            "http": http,
            "auth": auth,
        }
