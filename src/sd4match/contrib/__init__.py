"""Adapters to the interfaces of other libraries, which are imported when an adapter is called."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
