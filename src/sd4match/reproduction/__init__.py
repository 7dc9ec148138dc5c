"""Tables and figures of the paper, each trained, measured and drawn by one call."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
