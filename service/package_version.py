"""Which release of this package runs."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def package_version() -> str:
    """The version of this package; "" where it is not installed."""
    try:
        return version("close-enrich")
    except PackageNotFoundError:
        return ""
