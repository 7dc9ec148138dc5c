"""Matchers that change a correlation leave no trace in those beside them."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

from sd4match.config.protocols import get_protocol
from sd4match.evaluation.evaluator import Evaluator
from sd4match.matching import NearestNeighbor, SoftArgmax
from sd4match.prompting import EmptyPrompt
from sd4match.structures.tensors import Sampling
from sd4match.testing import FakeBackbone, FakePairs, FakeTextEncoder


class Mirrored:
    """Matches the mirror image of the correlation."""

    def __call__(self, correlation):
        return NearestNeighbor()(replace(correlation, values=correlation.values.flip(-1)))


def test_counts_do_not_depend_on_the_order_of_matchers():
    backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    parts = {"nearest": NearestNeighbor(), "soft": SoftArgmax(), "mine": Mirrored()}

    def counts(names):
        evaluator = Evaluator(
            backbone=backbone, protocol=get_protocol("sd4match"), matchers={name: parts[name] for name in names},
            sampling=Sampling(50), memory=1 << 20,
        )  # fmt: skip
        scores = evaluator.evaluate(FakePairs(), EmptyPrompt(backbone=backbone))
        return {name: [row.tolist() for row in scores[name].correct] for name in names}

    alone = {name: counts([name])[name] for name in parts}
    for order in permutations(parts):
        assert counts(order) == alone
