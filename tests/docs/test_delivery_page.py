"""The page on moving bundles, with a real registry."""

from __future__ import annotations

from tests.delivery.conftest import registry, start_registry
from tests.delivery.large import make_large
from tests.docs.runner import run_page

__all__ = ["registry", "start_registry"]


def test_delivery(registry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REGISTRY", registry.host)
    make_large(tmp_path / "digits.bundle", 24, 1_000_000)
    make_large(tmp_path / "tuned.bundle", 24, 1_000_000, version="1.1.0", tuned=(7,))
    run_page("docs/delivery.md", {"registry": registry.host})
