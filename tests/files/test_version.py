"""The version that is installed."""

from __future__ import annotations

from importlib import metadata

import pytest

from gradnoise.files.version import version


def test_it_is_what_pip_knows() -> None:
    assert version() == metadata.version("gradnoise")


def test_a_checkout_that_is_not_installed_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> str:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "version", missing)
    assert version() == "unknown"
