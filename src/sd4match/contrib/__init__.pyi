from .transformers import as_pipeline as as_pipeline
from .vismatch import as_vismatch as as_vismatch
