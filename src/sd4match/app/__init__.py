"""Browser app that matches clicked points of two photos, and trains a prompt on clicked points."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
