"""Every promise of the interfaces, and one property of each component."""

from hypothesis import given

from sd4match.testing import check_plugin, correlations
from sd4match_lowrank import MutualRatio


def test_every_component_keeps_the_promises_of_its_interface() -> None:
    assert not check_plugin("sd4match-lowrank").left_out


@given(correlations(min_side=3))
def test_a_stricter_ratio_keeps_fewer(correlation) -> None:
    strict, lax = (MutualRatio(ratio=ratio)(correlation).valid for ratio in (0.5, 0.9))
    assert not (strict & ~lax).any()
