"""Fakes, hypothesis strategies and conformance checks for tests of custom components.

The strategies need the extra `testing`.
"""

import lazy_loader

import sd4match.testing.config  # noqa: F401 # registers the fakes

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
