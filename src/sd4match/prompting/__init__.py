"""Prompts: from photos and their categories to prompt embeddings; prompt files, published prompts, the hub."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
