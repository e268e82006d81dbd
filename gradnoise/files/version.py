"""The version of gradnoise that is installed."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """As pip knows it; "unknown" where a checkout runs that is not installed."""
    try:
        return metadata.version("gradnoise")
    except metadata.PackageNotFoundError:
        return "unknown"
