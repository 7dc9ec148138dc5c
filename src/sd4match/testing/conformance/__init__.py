"""Conformance checks of components, to be called from tests.

Each check raises an AssertionError that says in one sentence which promise of the interface is broken.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
