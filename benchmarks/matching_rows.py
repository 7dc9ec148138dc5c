"""Rows of matching and counting on given maps, of an evaluation from memory, and of its growth."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from benchmarks.loops import PairEvaluator
from benchmarks.table import Row, duration, speed_row
from benchmarks.timing import in_turns, ratio
from sd4match.backbones.preprocessing import squash
from sd4match.config.protocols import EvaluationProtocol, get_protocol
from sd4match.data.collate import make_images
from sd4match.evaluation.evaluator import Evaluator
from sd4match.evaluation.scores import PairScores
from sd4match.geometry import Grid, squash_frame
from sd4match.interfaces import Backbone, Prompt
from sd4match.matching import BilinearNearestNeighbor, KernelSoftArgmax, NearestNeighbor, SoftArgmax
from sd4match.prompting.text import EmptyPrompt
from sd4match.structures.images import ImageBatch, Photo, View, Views
from sd4match.structures.pairs import PairRecord
from sd4match.structures.specs import FeatureSpec
from sd4match.structures.tensors import Encoded, FeatureMap, PromptEmbedding, Sampling
from sd4match.testing import FakeBackbone, FakePairs

IMAGE, CHANNELS, SIDE, PHOTOS, POINTS = 768, 1280, 48, 24, 20
ALLOWED = 1.8
"""Times the product of the corners' cells that matching and PCK of a pair may take, with four matchers."""


def noise(key: str) -> Tensor:
    """Return values (C, h, w) that depend on the key of a photo."""
    generator = torch.Generator().manual_seed(int(key[:12], 16))
    return torch.randn(CHANNELS, SIDE, SIDE, generator=generator)


def matching(*, pairs: int, rounds: int) -> Row:
    """Return the row of matching and counting with four matchers, against a loop over pairs."""
    data = FakePairs(pairs=pairs, photos=PHOTOS, points=POINTS)
    protocol = get_protocol("sd4match")
    matchers = {
        "nearest": NearestNeighbor(), "soft": SoftArgmax(), "kernel": KernelSoftArgmax(),
        "bilinear": BilinearNearestNeighbor(),
    }  # fmt: skip
    maps = {str(photo): noise(data.photo(str(photo)).key) for photo in range(PHOTOS)}
    frame = squash_frame((24, 32), (IMAGE, IMAGE))
    features = {name: FeatureMap(values[None], Grid((frame,), (SIDE, SIDE))) for name, values in maps.items()}
    evaluator = Evaluator(
        backbone=FakeBackbone(), protocol=protocol, matchers=matchers, sampling=Sampling(50), memory=0
    )
    loop = PairEvaluator(maps, side=IMAGE, alphas=protocol.alphas)

    def ours() -> dict[str, PairScores]:
        return evaluator.count(data, lambda record: (features[record.source_id], features[record.target_id]))

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
    average, limit = seconds["ours"] / pairs, seconds["loop"] / pairs / product
    return speed_row(
        f"matching and PCK of {pairs:,} pairs, {POINTS} points, four matchers", ours=seconds["ours"],
        loop=seconds["loop"], ratio=ratio(times["loop"], times["ours"]), limit=limit, must=limit / ALLOWED,
        note="Goes pair by pair and matcher by matcher: each samples by grid, normalizes the whole target map, "
        "correlates, and sorts all scores of a point where it needs the largest. The limit is one product of the cells "
        f"around the queries with the map, {product * 1e3:.1f} ms a pair; ours takes {average / product:.2f} times as "
        f"much, at most {ALLOWED} times is the target. Counts differ in {apart:.0e} of the points.",
    )  # fmt: skip


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class WideBackbone(Backbone):
    """Backbone whose cheap maps are as large as those of Stable Diffusion at 768: 1280 x 48 x 48."""

    def __init__(self) -> None:
        super().__init__()
        self.size = (4 * SIDE, 4 * SIDE)
        self.spec = FeatureSpec(
            channels=CHANNELS, stride=4, prompt_width=8, max_length=16, layers=1, native_size=self.size,
            size_multiple=4, architecture="wide",
        )  # fmt: skip
        self.mix = torch.randn(CHANNELS, 48, generator=torch.Generator().manual_seed(0))

    def prepare(self, photo: Photo) -> View:
        """Squash a photo."""
        return squash(photo, self.size)

    def encode(self, views: Views) -> Encoded:
        """Return the pixels."""
        return Encoded({"pixels": views.pixels}, views.frames, views.keys)

    def extract(self, encoded: Encoded, prompt: PromptEmbedding | None, sampling: Sampling) -> FeatureMap:
        """Project patches of 4 x 4 pixels to the channels."""
        patches = torch.nn.functional.pixel_unshuffle(encoded.tensors["pixels"], 4).flatten(2)
        values = torch.matmul(self.mix, patches).unflatten(2, (SIDE, SIDE))
        return FeatureMap(values, Grid(encoded.frames, (SIDE, SIDE)))


class ZeroPrompt(Prompt):
    """Prompt of each photo, so that no map is shared."""

    scope = "image"

    def forward(self, images: ImageBatch, partners: ImageBatch | None = None) -> PromptEmbedding:
        """Return zeros."""
        return PromptEmbedding(torch.zeros(len(images), 16, 8))


class ManyPoints(FakePairs):
    """Pairs of 5 to 20 points."""

    def __init__(self, *, pairs: int, photos: int) -> None:
        super().__init__(pairs=pairs, photos=photos, points=POINTS)

    def __getitem__(self, index: int) -> PairRecord:
        record = super().__getitem__(index)
        count = 5 + index % 16
        for name in ("source_points", "target_points", "visible"):
            object.__setattr__(record, name, getattr(record, name)[:count])
        return record


def evaluation(*, photos: int = 100, pairs: int = 680, rounds: int = 1) -> Iterator[Row]:
    """Return the rows of an evaluation whose maps fit in memory, wholly and by a quarter, against a bare loop."""
    data, backbone, prompt = ManyPoints(pairs=pairs, photos=photos), WideBackbone(), ZeroPrompt()
    protocol, matcher = EvaluationProtocol(), KernelSoftArgmax()
    ids = list(dict.fromkeys(side for key in data.keys for side in (key.source_id, key.target_id)))
    all_maps = len(ids) * CHANNELS * SIDE * SIDE * 4

    def ours(memory: int) -> list[list[int]]:
        evaluator = Evaluator(
            backbone=backbone, protocol=protocol, matchers={"it": matcher}, sampling=Sampling(50), memory=memory
        )
        scores = evaluator.evaluate(data, prompt)
        assert scores is not None
        return scores["it"].correct.tolist()  # type: ignore[no-any-return]

    @torch.no_grad()
    def loop() -> list[list[int]]:
        maps = {}
        for start in range(0, len(ids), 8):
            names = ids[start : start + 8]
            images = make_images(
                [data.photo(name) for name in names], [None] * len(names), {"backbone": backbone.prepare}
            )
            batch = backbone.extract(backbone.encode(images.views["backbone"]), prompt(images), Sampling(50))
            maps |= {name: batch[row : row + 1] for row, name in enumerate(names)}
        counts = []
        for record in data:
            points = torch.from_numpy(record.source_points)[None].float()
            matches = matcher(protocol.correlate(maps[record.source_id], maps[record.target_id], points))
            correct = protocol.correct(
                matches.points.double(), torch.from_numpy(record.target_points)[None],
                torch.from_numpy(record.visible)[None], photo_sizes=[record.target_size], boxes=[record.target_box],
                reference=data.reference,
            )  # fmt: skip
            counts.append(correct.sum(1)[0].tolist())
        return counts

    expected = loop()
    for fraction, memory, allowed in (("all", all_maps, 1.25), ("a quarter", all_maps // 4, 2.0)):
        if ours(memory) != expected:
            raise AssertionError(f"ours and the bare loop differ where {fraction} of the maps fit in memory")
        times = in_turns({"ours": lambda memory=memory: ours(memory), "loop": loop}, rounds=rounds)  # type: ignore[misc]
        seconds = {name: statistics.median(found) for name, found in times.items()}
        slowdown = ratio(times["ours"], times["loop"])
        yield Row(
            f"evaluation of {photos} photos, {pairs} pairs, {fraction} of the maps in memory",
            duration(seconds["ours"]), duration(seconds["loop"]), 1 / slowdown, 1.0, f">= {1 / allowed:.2f} x",
            slowdown <= allowed,
            "Extracts each photo once on a cheap backbone with maps of 1280 x 48 x 48, and matches each pair from "
            f"memory. Ours takes {slowdown:.2f} times as long; the target is {allowed}. Counts are equal.",
        )  # fmt: skip


def growth(backbone: Backbone, *, members: int) -> Iterator[Row]:
    """Return rows of the exponents a and b of time = c * photos^a * pairs^b."""
    evaluator = Evaluator(
        backbone=backbone,
        protocol=get_protocol("sd4match"),
        matchers={"sd4match": KernelSoftArgmax()},
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
