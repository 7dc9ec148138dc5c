"""Rows without a model: matching and counting pairs, and how an evaluation grows with photos and pairs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from benchmarks.loops import PairEvaluator
from benchmarks.table import Row, duration, speed_row
from benchmarks.timing import in_turns, ratio
from sd4match.config.protocols import measurement
from sd4match.evaluation.evaluator import Evaluator, Rule
from sd4match.evaluation.scores import PairScores
from sd4match.geometry import squash_frame
from sd4match.interfaces import Backbone
from sd4match.matching.matchers import BilinearNearestNeighbor, KernelSoftArgmax, NearestNeighbor, SoftArgmax
from sd4match.prompting.text import EmptyPrompt
from sd4match.structures.tensors import FeatureMap, Sampling
from sd4match.testing import FakeBackbone, FakePairs

IMAGE, CHANNELS, SIDE, PHOTOS, POINTS = 768, 1280, 48, 24, 20


def noise(key: str) -> Tensor:
    """(C, h, w) out of a photo's key."""
    generator = torch.Generator().manual_seed(int(key[:12], 16))
    return torch.randn(CHANNELS, SIDE, SIDE, generator=generator)


def matching(*, pairs: int, rounds: int) -> Row:
    """Matching and counting, four matchers, against a loop over pairs."""
    data = FakePairs(pairs=pairs, photos=PHOTOS, points=POINTS)
    rule = measurement("sd4match")
    matchers = {
        "nearest": NearestNeighbor(), "soft": SoftArgmax(), "kernel": KernelSoftArgmax(),
        "bilinear": BilinearNearestNeighbor(),
    }  # fmt: skip
    maps = {str(photo): noise(data.photo(str(photo)).key) for photo in range(PHOTOS)}
    frame = squash_frame((24, 32), (IMAGE, IMAGE))
    features = {name: FeatureMap(values[None], (frame,)) for name, values in maps.items()}
    evaluator = Evaluator(
        backbone=FakeBackbone(), rules={name: Rule(rule, matcher) for name, matcher in matchers.items()},
        sampling=Sampling(50),
    )  # fmt: skip
    loop = PairEvaluator(maps, side=IMAGE, alphas=rule.alphas)

    def ours() -> dict[str, PairScores]:
        return evaluator.count(
            data, lambda records: [(features[one.source_id], features[one.target_id]) for one in records]
        )

    counts, theirs = ours(), loop.evaluate(data)
    apart = max(
        np.abs(counts[name].correct - theirs[name].numpy()[[int(pair[5:]) for pair in counts[name].pair_ids]]).sum()
        / counts[name].visible.sum()
        for name in matchers
    )
    if apart > 1e-3:
        raise AssertionError(f"ours and the loop differ in {apart:.1%} of the points")
    times = in_turns({"ours": ours, "loop": lambda: loop.evaluate(data)}, rounds=rounds)
    seconds = {name: statistics.median(found) for name, found in times.items()}
    sources = list(maps.values())
    corners = torch.randn(4 * POINTS, CHANNELS)
    product = statistics.median(_timed(lambda one=one: corners @ one.flatten(1)) for one in sources * 2)
    average = seconds["loop"] / pairs
    return speed_row(
        f"matching and PCK of {pairs:,} pairs, {POINTS} points, four matchers", ours=seconds["ours"],
        loop=seconds["loop"], ratio=ratio(times["loop"], times["ours"]), limit=average / product, must=8.0,
        note="Goes pair by pair and matcher by matcher: each samples by grid, normalises the whole target map, "
        "correlates, and sorts all scores of a point where it wants the best. The "
        f"limit is one product of the cells around the queries with the map, {product * 1e3:.1f} ms a pair; the loop "
        f"takes {average * 1e3:.0f} ms. Counts differ in {apart:.0e} of the points.",
    )  # fmt: skip


def _timed(work) -> float:  # type: ignore[no-untyped-def]
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def growth(backbone: Backbone, *, members: int) -> Iterator[Row]:
    """The exponents a and b of time = c * photos^a * pairs^b, under a prompt that belongs to the photo."""
    evaluator = Evaluator(
        backbone=backbone,
        rules={"sd4match": Rule(measurement("sd4match"), KernelSoftArgmax())},
        sampling=Sampling(50, members),
    )
    prompt = EmptyPrompt(backbone=backbone)
    data = {
        (photos, pairs): FakePairs(pairs=pairs, photos=photos, points=POINTS)
        for photos, pairs in ((4, 16), (8, 64), (8, 16), (16, 64), (16, 128))
    }
    times = in_turns(
        {str(size): lambda one=one: evaluator.evaluate(one, prompt) for size, one in data.items()}, rounds=2
    )  # type: ignore[misc]
    found = [(*size, statistics.median(times[str(size)])) for size in data]
    table = np.log(np.array(found))
    terms = np.column_stack([np.ones(len(table)), table[:, :2]])
    (_, by_photos, by_pairs), *_ = np.linalg.lstsq(terms, table[:, 2], rcond=None)
    spans = "; ".join(f"{photos} photos, {pairs} pairs: {duration(seconds)}" for photos, pairs, seconds in found)
    yield Row(
        "exponent of an evaluation's time, by photos", f"{by_photos:.2f}", "", None, 1.0, "1.0 +- 0.2",
        bool(0.8 <= by_photos <= 1.2), f"A fit of time = c * photos^a * pairs^b to {spans}.",
    )  # fmt: skip
    yield Row("the same, by pairs", f"{by_pairs:.2f}", "", None, 0.0, "<= 0.1", bool(by_pairs <= 0.1), "")
