"""Registries, and bundles to move."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_sdk.bundle.reader import Bundle, open_bundle
from edge_sdk.transport.push import push
from edge_sdk.transport.registry_http import RegistryClient
from edge_sdk.transport.source import Reference
from tests.bundle.conftest import tmp_path
from tests.bundle.samples import make_bundle
from tests.delivery.registries import Registry, TokenServer

__all__ = ["tmp_path"]


@pytest.fixture
def start_registry(tmp_path: Path) -> Iterator[Callable[..., Registry]]:
    """Starts registries that end with the test."""
    with contextlib.ExitStack() as stack:

        def start(**options: object) -> Registry:
            number = len(list(tmp_path.glob("registry-*")))
            registry = Registry(tmp_path / f"registry-{number}", **options)
            stack.callback(registry.stop)
            registry.start()
            return registry

        yield start


@pytest.fixture
def registry(start_registry: Callable[..., Registry]) -> Registry:
    """One that lets everybody in."""
    return start_registry()


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[TokenServer]:
    """A server of bearer tokens."""
    (tmp_path / "tokens").mkdir()
    server = TokenServer(tmp_path / "tokens")
    yield server
    server.stop()


@pytest.fixture
def client() -> Iterator[RegistryClient]:
    client = RegistryClient(lambda _: None)
    yield client
    client.close()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Two variants that share weights."""
    return open_bundle(make_bundle(tmp_path / "bundle"))


@pytest.fixture
def pushed(bundle: Bundle, registry: Registry, client: RegistryClient) -> Reference:
    """The bundle's place in the registry."""
    reference = Reference.parse(f"{registry.host}/models/digits:1.0.0")
    push(client, bundle, reference)
    return reference
