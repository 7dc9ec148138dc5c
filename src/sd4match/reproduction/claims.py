"""Claims of the paper about its numbers, tested on ours: differences over seeds and pairs, and a verdict."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from sd4match.evaluation.scores import PairScores
from sd4match.evaluation.seeds import Estimate, difference_values, estimate, image_values
from sd4match.reproduction.targets import BEST_OTHER, EVERY, Claim, Place, Target

Verdict = Literal["holds", "does not hold", "not different", "too few to tell"]
FEWEST_PAIRS, SHORTEST = 30, 10
"""Smallest number of pairs, and divisor of the model's usual training steps, for a verdict on a claim."""
Cells = Mapping[Place, tuple[PairScores, ...]]
"""Scores of each seed by row and column."""


@dataclass(frozen=True)
class Judged:
    """Claim with our difference a - b over seeds and pairs, in [-1, 1], its verdict, and the compared column."""

    claim: Claim
    difference: Estimate
    verdict: Verdict
    column: str


def judge(target: Target, cells: Cells, *, too_short: Collection[str] = ()) -> list[Judged]:
    """Judge every claim of a target by its scores; fewer than 30 pairs are too few to tell.

    Args:
        target: target with its claims.
        cells: scores of all cells that the claims name.
        too_short: rows whose trainings are too short to tell.
    """
    judged = [_judge(claim, target, cells) for claim in target.claims]
    return [
        replace(claimed, verdict="too few to tell")
        if {claimed.claim.a[0], claimed.claim.b[0]} & {*too_short}
        or len(cells[claimed.claim.b[0], claimed.column][0]) < FEWEST_PAIRS
        else claimed
        for claimed in judged
    ]


def verdict_of(ci95: tuple[float, float], relation: str) -> Verdict:
    """Return the verdict of an interval of a - b on a claim.

    Equality cannot be shown: a claim that two are equal is "not different" at best.

    >>> verdict_of((0.01, 0.03), ">"), verdict_of((-0.01, 0.03), ">"), verdict_of((0.01, 0.03), "=")
    ('holds', 'not different', 'does not hold')
    """
    low, high = ci95
    if low <= 0 <= high:
        return "not different"
    return "holds" if relation == ">" and low > 0 else "does not hold"


def _judge(claim: Claim, target: Target, cells: Cells) -> Judged:
    (row, column), (other_row, other_column) = claim.a, claim.b
    if column == EVERY:
        found = [_compared(claim, (row, each), (other_row, each), cells) for each in target.columns]
        worst = {"does not hold": 0, "not different": 1, "holds": 2}
        return min(found, key=lambda judged: (worst[judged.verdict], judged.difference.mean))
    if other_column == BEST_OTHER:
        others = [each for each in target.columns if each != column]
        other_column = max(others, key=lambda each: image_values(cells[other_row, each], alpha=claim.alpha).mean())
    return _compared(claim, (row, column), (other_row, other_column), cells)


def _compared(claim: Claim, a: Place, b: Place, cells: Cells) -> Judged:
    values = difference_values(image_values(cells[a], alpha=claim.alpha), image_values(cells[b], alpha=claim.alpha))
    found = estimate(values)
    return Judged(claim, found, verdict_of(found.ci95, claim.relation), b[1])
