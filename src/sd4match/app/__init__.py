"""App in the browser: click points of one photo and see their matches in another, train a prompt on clicked points."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
