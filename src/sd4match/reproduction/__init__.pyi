from .run import reproduce as reproduce
from .settings import ReproductionSettings as ReproductionSettings
from .targets import target_names as target_names
