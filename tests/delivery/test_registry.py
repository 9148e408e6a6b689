"""Real registries, and servers that behave as real ones do and Debian's does not."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import threading
from dataclasses import replace

import pytest

from edge_sdk.bundle import oci
from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.reader import open_bundle
from edge_sdk.bundle.record import Blob
from edge_sdk.bundle.store import Store
from edge_sdk.errors import BundleError, ConfigError, DigestError, TransferError
from edge_sdk.transport.credentials import Credentials, find_credentials
from edge_sdk.transport.fetch import fetch
from edge_sdk.transport.push import push
from edge_sdk.transport.registry import RegistrySource
from edge_sdk.transport.registry_http import RegistryClient
from edge_sdk.transport.source import Reference
from edge_sdk.transport.transfer import Retry
from tests.brokers import Certificates
from tests.bundle.forge import flip
from tests.delivery.large import make_large
from tests.delivery.registries import USER
from tests.delivery.servers import Answer, serving
from tests.delivery.wire import wire_to

DATA = bytes(range(256)) * 40
BLOB = Blob(digest=f"sha256:{hashlib.sha256(DATA).hexdigest()}", size=len(DATA))


@pytest.fixture
def source():
    """Reads from registries without credentials."""
    source = RegistrySource(RegistryClient(lambda _: None, timeout=5))
    yield source
    source.close()


def at(server, repository="models/digits"):
    return Reference.parse(f"{server.host}/{repository}:1.0.0")


def read(source, *what):
    """The bytes of a blob."""
    return b"".join(piece.data for piece in source.read(*what))


def carry(bundle, registry, client, source, tmp_path):
    """Pushes a bundle to a registry and fetches it into a store."""
    reference = at(registry)
    push(client, bundle, reference)
    fetched = fetch(source, reference, tmp_path / "store")
    store = Store(tmp_path / "store")
    store.enter(fetched.descriptor, fetched.bundle.digest)
    assert fetched.bundle.digest == bundle.descriptor.digest
    assert list(store.verify()) == []


def test_a_bundle_goes_into_a_registry_and_out(bundle, registry, client, source, tmp_path):
    carry(bundle, registry, client, source, tmp_path)


def test_a_digest_resolves_like_its_tag(pushed, bundle, source):
    by_tag = source.resolve(pushed)
    assert by_tag == source.resolve(pushed.at(bundle.descriptor.digest))
    assert by_tag.digest == bundle.descriptor.digest
    assert by_tag.media_type == oci.INDEX


def test_a_password_is_asked_for(bundle, start_registry, tmp_path):
    registry = start_registry(password=True)
    client, source = RegistryClient(lambda _: USER), RegistrySource(RegistryClient(lambda _: USER))
    carry(bundle, registry, client, source, tmp_path)
    client.close()
    source.close()


@pytest.mark.parametrize(
    ("known", "said"), [(None, "wants to know who asks"), (Credentials("x", "y"), "does not allow")]
)
def test_without_the_password_nothing_comes(start_registry, known, said):
    registry = start_registry(password=True)
    source = RegistrySource(RegistryClient(lambda _: known))
    with pytest.raises(TransferError, match=said) as error:
        source.resolve(at(registry))
    assert not error.value.passing
    assert "docker login" in str(error.value.remedy)
    source.close()


def test_tokens_are_fetched_with_the_password_and_kept(bundle, start_registry, tokens, tmp_path):
    registry = start_registry(tokens=tokens)
    client, source = RegistryClient(lambda _: USER), RegistrySource(RegistryClient(lambda _: USER))
    carry(bundle, registry, client, source, tmp_path)
    asked = [(scope.split(":")[1], set(scope.split(":")[2].split(","))) for scope in tokens.scopes]
    assert ("models/digits", {"pull"}) in asked
    assert ("models/digits", {"pull", "push"}) in asked
    assert len(asked) < 2 * 8 + 2, "a token per request"
    client.close()
    source.close()


def test_a_wrong_password_gets_no_token(start_registry, tokens):
    source = RegistrySource(RegistryClient(lambda _: Credentials("device", "wrong")))
    with pytest.raises(TransferError, match="401") as error:
        source.resolve(at(start_registry(tokens=tokens)))
    assert not error.value.passing
    source.close()


def test_an_expired_token_is_renewed(source):
    valid = ["first"]

    def answer(asked):
        if asked.path.startswith("/token"):
            return Answer(body=json.dumps({"access_token": valid[-1]}).encode())
        if asked.headers.get("authorization") == f"Bearer {valid[-1]}":
            return Answer(body=DATA)
        realm = f'Bearer realm="http://{server.host}/token",service="x",scope="repository:a:pull"'
        return Answer(401, headers={"WWW-Authenticate": realm})

    with serving(answer) as server:
        assert read(source, at(server), BLOB) == DATA
        valid.append("second")
        assert read(source, at(server), BLOB) == DATA
        assert sum(asked.path.startswith("/token") for asked in server.asked) == 2


def test_https_with_a_ca_of_ones_own(bundle, start_registry, certificates, tmp_path):
    registry = start_registry(certificates=certificates)
    client = RegistryClient(lambda _: None, ca=certificates.ca)
    source = RegistrySource(RegistryClient(lambda _: None, ca=certificates.ca))
    reference = replace(at(registry), plain=False)
    push(client, bundle, reference)
    assert source.resolve(reference).digest == bundle.descriptor.digest
    client.close()
    source.close()


def test_unknown_certificates_are_refused(start_registry, certificates, source):
    reference = replace(at(start_registry(certificates=certificates)), plain=False)
    with pytest.raises(TransferError, match="certificate") as error:
        source.resolve(reference)
    assert not error.value.passing
    assert "--ca" in str(error.value.remedy)


@pytest.mark.needs("openssl", "openssl")
def test_a_certificate_out_of_time_may_be_a_clock_that_is_wrong(tmp_path):
    """A board without a battery begins in 1970: that is no reason to give a version up."""
    certificates = Certificates(tmp_path)
    certificates.authority()
    certificates.issue("server", days=-1)
    source = RegistrySource(RegistryClient(lambda _: None, ca=certificates.ca))
    with (
        serving(lambda _: Answer(), certificates) as server,
        pytest.raises(TransferError, match="expired") as error,
    ):
        source.resolve(replace(at(server), plain=False))
    assert error.value.passing
    assert "clock" in str(error.value.remedy)
    source.close()


def test_a_registry_without_tls_is_told_apart(registry, source):
    with pytest.raises(TransferError) as error:
        source.resolve(replace(at(registry), plain=False))
    assert not error.value.passing
    assert "--plain-http" in str(error.value.remedy)


def test_tls_that_is_cut_is_a_passing_error(start_registry, certificates, bundle, tmp_path):
    registry = start_registry(certificates=certificates)
    client = RegistryClient(lambda _: None, ca=certificates.ca)
    large = open_bundle(make_large(tmp_path / "large", 3, 400_000))
    push(client, large, replace(at(registry), plain=False))
    client.close()
    source = RegistrySource(RegistryClient(lambda _: None, ca=certificates.ca))
    with wire_to(registry.port) as wire:
        wire.cut_after, wire.cuts_left = 150_000, 4
        retry = Retry(attempts=4, shortest=0.01, longest=0.02)
        fetch(source, replace(at(wire), plain=False), tmp_path / "store", retry=retry)
        assert wire.cuts == 4
    source.close()


def test_a_ca_that_is_not_there_is_told_at_once(tmp_path):
    with pytest.raises(ConfigError, match="certificates"):
        RegistrySource(RegistryClient(ca=tmp_path / "none.crt"))
    (tmp_path / "empty.crt").touch()
    with pytest.raises((ConfigError, TransferError)):
        RegistrySource(RegistryClient(ca=tmp_path / "empty.crt")).resolve(
            Reference.parse("https://127.0.0.1:1/a")
        )


def test_a_redirect_does_not_carry_credentials_to_another_host():
    def registry_answer(asked):
        if asked.headers.get("authorization") != USER.basic:
            return Answer(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return Answer(307, headers={"Location": f"http://{storage.host}/data"})

    source = RegistrySource(RegistryClient(lambda _: USER))
    with serving(lambda _: Answer(body=DATA)) as storage, serving(registry_answer) as registry:
        assert read(source, at(registry), BLOB) == DATA
        assert [asked.path for asked in storage.asked] == ["/data"]
        assert "authorization" not in storage.asked[0].headers
    source.close()


def test_a_redirect_out_of_tls_is_not_followed(certificates):
    source = RegistrySource(RegistryClient(lambda _: None, ca=certificates.ca))
    with serving(lambda _: Answer(body=DATA)) as storage:
        onward = Answer(307, headers={"Location": f"http://{storage.host}/data"})
        with (
            serving(lambda _: onward, certificates) as registry,
            pytest.raises(TransferError, match="sends us on to 'http:"),
        ):
            list(source.read(replace(at(registry), plain=False), BLOB))
        assert not storage.asked
    source.close()


def test_a_password_does_not_go_to_a_token_server_without_tls(certificates):
    source = RegistrySource(RegistryClient(lambda _: USER, ca=certificates.ca))
    with serving(lambda _: Answer(body=b'{"token": "x"}')) as tokens:
        challenge = {"WWW-Authenticate": f'Bearer realm="http://{tokens.host}/"'}
        with (
            serving(lambda _: Answer(401, headers=challenge), certificates) as registry,
            pytest.raises(TransferError, match="sends us on to"),
        ):
            source.resolve(replace(at(registry), plain=False))
        assert not tokens.asked
    source.close()


def test_redirects_in_a_circle_end(source):
    with (
        serving(lambda asked: Answer(302, headers={"Location": asked.path})) as server,
        pytest.raises(TransferError, match="without end"),
    ):
        source.resolve(at(server))


@pytest.mark.parametrize("offset", [0, 1, 4096, len(DATA) - 1])
def test_a_blob_is_read_from_an_offset(pushed, bundle, source, offset):
    blob = bundle.variants[0].files["variant.json"].blob
    data = bundle.variants[0].blob_path(blob.digest).read_bytes()
    offset = min(offset, len(data) - 1)
    assert read(source, pushed, blob, offset) == data[offset:]


def test_a_server_without_ranges_is_read_from_the_start(source):
    with serving(lambda _: Answer(body=DATA)) as server:
        assert read(source, at(server), BLOB, 1000) == DATA[1000:]


def test_a_server_that_gives_another_range_is_refused(source):
    wrong = Answer(206, DATA[10:], {"Content-Range": f"bytes 10-{len(DATA) - 1}/{len(DATA)}"})
    with (
        serving(lambda _: wrong) as server,
        pytest.raises(TransferError, match="from 1000 on and gives 'bytes 10'"),
    ):
        list(source.read(at(server), BLOB, 1000))


@pytest.mark.parametrize(
    ("status", "passing"),
    [(400, False), (403, False), (404, False), (429, True), (500, True), (503, True)],
)
def test_refusals_say_what_the_registry_says(source, status, passing):
    errors = {"errors": [{"code": "SOME_CODE", "message": "in its own words"}]}
    with (
        serving(lambda _: Answer(status, json.dumps(errors).encode())) as server,
        pytest.raises(
            TransferError, match=f"answers {status}, SOME_CODE: in its own words"
        ) as error,
    ):
        source.resolve(at(server))
    assert error.value.passing is passing


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b'{"errors": 3}'])
def test_refusals_in_other_words_are_errors_too(source, body):
    with (
        serving(lambda _: Answer(502, body)) as server,
        pytest.raises(TransferError, match="answers 502"),
    ):
        source.resolve(at(server))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"not json", "not a valid"),
        (b"{}", "without media type"),
        (b'{"mediaType": "application/vnd.docker.distribution.manifest.v2+json"}', "docker"),
    ],
)
def test_what_is_no_bundle_is_told_apart(source, body, said):
    with serving(lambda _: Answer(body=body)) as server, pytest.raises(BundleError, match=said):
        source.resolve(at(server))


def test_what_is_being_read_breaks_off_when_the_source_is_closed(source):
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(DATA)}\r\n\r\n".encode()
    with socket.create_server(("127.0.0.1", 0)) as server:
        name = f"127.0.0.1:{server.getsockname()[1]}/a:1"
        reading = threading.Thread(target=lambda: ended.append(read_all()))
        ended: list[bool] = []

        def read_all():
            with pytest.raises(TransferError, match="broke off"):
                list(source.read(Reference.parse(name), BLOB))
            return True

        reading.start()
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(head + DATA[:1000])
            while reading.is_alive():
                source.close()
                reading.join(0.01)
    assert ended == [True]


def test_a_fetch_that_waits_for_an_answer_can_be_stopped(tmp_path):
    """Long before the answer would count as missing."""
    asked, ended = threading.Event(), threading.Event()
    source = RegistrySource(RegistryClient(lambda _: None, timeout=600))

    def bring():
        with pytest.raises(TransferError, match="stopped before it was done"):
            fetch(source, reference, tmp_path / "store", cancelled=asked.is_set)
        ended.set()

    with socket.create_server(("127.0.0.1", 0)) as server:
        reference = Reference.parse(f"127.0.0.1:{server.getsockname()[1]}/a:1")
        fetching = threading.Thread(target=bring, daemon=True)
        fetching.start()
        connection, _ = server.accept()
        with connection:
            assert connection.recv(4096).startswith(b"GET /v2/a/manifests/1")
            asked.set()
            assert ended.wait(30)
            assert connection.recv(4096) == b""
    source.close()


def test_a_registry_that_is_away_is_a_passing_error(source):
    with serving(lambda _: Answer()) as server:
        gone = at(server)
    with pytest.raises(TransferError, match="is not reached") as error:
        source.resolve(gone)
    assert error.value.passing


def test_the_environments_proxy_is_used_but_not_on_loopback(source, monkeypatch):
    monkeypatch.delenv("no_proxy", raising=False)
    with serving(lambda _: Answer(body=DATA)) as proxy:
        monkeypatch.setenv("http_proxy", f"http://user:secret@{proxy.host}")
        there = Reference.parse("http://registry.example:5000/a:1")
        assert read(source, there, BLOB) == DATA
        (asked,) = proxy.asked
        assert asked.path == f"http://registry.example:5000/v2/a/blobs/{BLOB.digest}"
        secret = base64.b64encode(b"user:secret").decode()
        assert asked.headers["proxy-authorization"] == f"Basic {secret}"
        with serving(lambda _: Answer(body=DATA)) as server:
            assert read(source, at(server), BLOB) == DATA
        assert len(proxy.asked) == 1


def test_credentials_come_from_the_environment_first():
    found = find_credentials(
        "registry.example",
        {"EDGE_SDK_REGISTRY_USER": "me", "EDGE_SDK_REGISTRY_PASSWORD": "mine"},
    )
    assert found == Credentials("me", "mine")
    assert "mine" not in repr(found)


@pytest.mark.parametrize("key", ["registry.example:5000", "https://registry.example:5000"])
def test_credentials_come_from_docker_login(tmp_path, key):
    auth = base64.b64encode(b"me:with:colon").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {key: {"auth": auth}}}))
    environment = {"DOCKER_CONFIG": str(tmp_path)}
    found = find_credentials("registry.example:5000", environment)
    assert found == Credentials("me", "with:colon")
    assert find_credentials("other.example", environment) is None


HELPER = """#!/bin/sh
read registry
case "$registry" in
  known.example) echo '{"ServerURL": "x", "Username": "me", "Secret": "mine"}' ;;
  token.example) echo '{"Username": "<token>", "Secret": "x"}' ;;
  odd.example) echo 'not json' ;;
  locked.example) echo 'the keychain is locked'; exit 1 ;;
  *) echo 'credentials not found in native keychain'; exit 1 ;;
esac
"""


@pytest.fixture(params=["store", "helper"])
def ask_helper(request, tmp_path):
    """Asks for a registry's credentials where Docker leaves them to a program."""
    program = tmp_path / "docker-credential-test"
    program.write_text(HELPER)
    program.chmod(0o755)
    names = ("known", "token", "odd", "locked", "unknown")
    config = {
        "store": {"credsStore": "test", "auths": {"known.example": {}}},
        "helper": {"credHelpers": {f"{name}.example": "test" for name in names}},
    }[request.param]
    (tmp_path / "config.json").write_text(json.dumps(config))
    path = f"{tmp_path}:{os.environ['PATH']}"
    environment = {"DOCKER_CONFIG": str(tmp_path), "PATH": path}
    return lambda name: find_credentials(f"{name}.example", environment)


def test_a_credential_helper_is_asked(ask_helper):
    assert ask_helper("known") == Credentials("me", "mine")
    assert ask_helper("unknown") is None


@pytest.mark.parametrize(
    ("name", "said"),
    [("token", "identity token"), ("odd", "cannot be asked"), ("locked", "keychain is locked")],
)
def test_a_credential_helper_that_fails_is_told(ask_helper, name, said):
    with pytest.raises(ConfigError, match=said):
        ask_helper(name)


def test_a_credential_helper_that_is_missing_is_told(tmp_path):
    (tmp_path / "config.json").write_text('{"credsStore": "none-such"}')
    with pytest.raises(ConfigError, match="docker-credential-none-such"):
        find_credentials("known.example", {"DOCKER_CONFIG": str(tmp_path), "PATH": "/bin"})


@pytest.mark.parametrize("text", ["", "{", '{"auths": 3}', '{"auths": {"r": {"auth": "%"}}}'])
def test_a_damaged_docker_config_is_told(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json"):
        find_credentials("r", {"DOCKER_CONFIG": str(tmp_path)})


def test_a_registry_with_a_damaged_disk_is_found_out(pushed, bundle, registry, source, tmp_path):
    damaged = bundle.variants[0].files["variant.json"].digest
    flip(registry.blob(damaged), 100)
    with pytest.raises(DigestError, match=damaged):
        fetch(source, pushed, tmp_path / "store")
    assert not BlobStore(tmp_path / "store").path(damaged).exists()


def test_without_docker_there_are_no_credentials(tmp_path):
    assert find_credentials("r", {"DOCKER_CONFIG": str(tmp_path)}) is None
    assert find_credentials("r", {"HOME": str(tmp_path)}) is None
    assert find_credentials("r", {}) is None
