"""What a reference stands for: in the server's own store, and in a real registry."""

from __future__ import annotations

import pytest

from edge_sdk.bundle.store import Store
from edge_sdk.errors import BundleError, ConfigError, TransferError
from edge_sdk.fleet.resolve import resolve
from tests.delivery.conftest import bundle, client, pushed, registry, start_registry, tmp_path

__all__ = ["bundle", "client", "pushed", "registry", "start_registry", "tmp_path"]
OWN = "http://fleet.example:8080"


def test_a_version_of_the_own_store_gets_the_servers_own_address(bundle, tmp_path):
    Store(tmp_path / "store").install(bundle)
    for text in ("digits", "digits:1.0.0"):
        found = resolve(text, tmp_path / "store", OWN)
        assert found.ref == "http://fleet.example:8080/digits:1.0.0"
        assert found.digest == bundle.descriptor.digest
        assert (found.name, found.version) == ("digits", "1.0.0")
        assert found.profiles == ("x86-64", "board")


def test_https_of_its_own_needs_no_scheme_on_the_wire(bundle, tmp_path):
    Store(tmp_path / "store").install(bundle)
    assert resolve("digits", tmp_path / "store", "https://hub").ref == "hub/digits:1.0.0"


@pytest.mark.needs("docker-registry", "docker-registry")
def test_a_bundle_in_a_registry_says_itself_what_it_is(pushed, bundle, tmp_path):
    found = resolve(str(pushed), tmp_path / "no-store", OWN)
    assert found.ref == str(pushed)
    assert found.digest == bundle.descriptor.digest
    assert (found.name, found.version) == ("digits", "1.0.0")
    assert found.profiles == ("x86-64", "board")


@pytest.mark.needs("docker-registry", "docker-registry")
def test_a_tag_that_is_not_there_is_said(pushed, tmp_path):
    with pytest.raises(TransferError):
        resolve(f"{pushed.registry}/{pushed.repository}:9.9.9", tmp_path, OWN)


def test_what_is_not_in_the_store_is_said(bundle, tmp_path):
    with pytest.raises(BundleError, match="store is empty"):
        resolve("digits:1.0.0", tmp_path / "store", OWN)
    Store(tmp_path / "store").install(bundle)
    with pytest.raises(BundleError, match=r"digits 2\.0\.0 is not installed"):
        resolve("digits:2.0.0", tmp_path / "store", OWN)


@pytest.mark.parametrize("text", ["", "a/b/c:", "host/UPPER:1"])
def test_what_is_no_reference_is_said(tmp_path, text):
    with pytest.raises((ConfigError, BundleError)):
        resolve(text, tmp_path, OWN)
