"""Semantic matching of photos with a frozen Stable Diffusion whose prompt is learned.

Importing this package loads neither torch nor diffusers: every public name is imported when it is first used.
"""

import lazy_loader

from sd4match.version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
