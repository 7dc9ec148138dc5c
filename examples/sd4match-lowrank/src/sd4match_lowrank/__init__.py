"""Components for sd4match: a low-rank prompt, a mutual matcher with a ratio, a loss with a learned temperature."""

from sd4match_lowrank.loss import TemperedCrossEntropy
from sd4match_lowrank.matcher import MutualRatio
from sd4match_lowrank.prompt import LowRankPrompt

__all__ = ["LowRankPrompt", "MutualRatio", "TemperedCrossEntropy"]
