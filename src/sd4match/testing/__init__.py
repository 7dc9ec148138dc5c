"""Fakes, hypothesis strategies and conformance checks for tests of one's own components.

The strategies need the extra `testing`.
"""

from sd4match.testing.checks import check_backbone as check_backbone
from sd4match.testing.fakes import FakeBackbone as FakeBackbone
from sd4match.testing.fakes import FakeImageEncoder as FakeImageEncoder
from sd4match.testing.fakes import FakePairs as FakePairs
from sd4match.testing.fakes import FakeTextEncoder as FakeTextEncoder
from sd4match.testing.fakes import random_correlation as random_correlation
from sd4match.testing.fakes import random_photo as random_photo
from sd4match.testing.strategies import cells as cells
from sd4match.testing.strategies import correlations as correlations
from sd4match.testing.strategies import tensors as tensors
from sd4match.testing.strategies import visibility as visibility
