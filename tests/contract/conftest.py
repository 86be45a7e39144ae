"""Fixtures of the contract's tests."""

from tests.providers.conftest import cloud, running_cloud

__all__ = ["cloud", "running_cloud"]
