"""Arguments of the right type that cannot be: rows, counts, lengths, and what does not go together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers.direct import no_type_checker  # noqa: F401 - a fixture of all tests here
from sd4match import load_preset
from sd4match.backbones import center_crop, pad, squash
from sd4match.config import build_components
from sd4match.data import make_images
from sd4match.errors import DatasetError, InputError, SD4MatchError, ShapeError
from sd4match.evaluation import PairScores, Row, evaluate
from sd4match.matching import matches_from_cells, matches_from_points
from sd4match.prompting import random_token_vectors
from sd4match.structures.images import ImageBatch
from sd4match.structures.pairs import PairKey
from sd4match.structures.tensors import Encoded
from sd4match.testing import FakeBackbone, FakePairs, FakeTextEncoder, check_backbone, random_correlation, random_photo
from sd4match.training import BatchSplit, Checkpoints

CORRELATION, PHOTO, RECORD = random_correlation(), random_photo(), FakePairs()[0]
MAPS = CORRELATION.source
IMAGES = make_images([PHOTO], ["cat"], {"backbone": FakeBackbone().prepare})
ENCODED = FakeBackbone().encode(IMAGES.views["backbone"])
NO_SCORES = PairScores((), (), np.zeros((0,), int), np.zeros((0, 1), int), (0.1,))
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.0, 0.5)}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        *[
            (lambda rows=rows: MAPS[rows], InputError, "rows must be")
            for rows in ([2], [-3], [0.5], slice(None, None, -1), slice("a"), slice(0, 1, 0))
        ],
        (lambda: IMAGES.views["backbone"][[1]], InputError, "rows must be"),
        (lambda: MAPS.grid[[7]], InputError, "rows must be"),
        (lambda: IMAGES.view("clip"), InputError, r"images must have views .*'clip'"),
        (lambda: replace(IMAGES, categories=("cat", "dog")), ShapeError, "expected backbone of 2 photos"),
        (lambda: ImageBatch({}, ("cat",), (PHOTO, PHOTO)), ShapeError, "expected photos of 1 photos"),
        (lambda: replace(ENCODED, names=("a", "b")), ShapeError, "expected names for 1 photos"),
        (lambda: Encoded({}, (), ("k",)), ShapeError, "a frame for each of 1 photos"),
        (lambda: PairKey(pair_id="", source_id="s", target_id="t"), InputError, "pair_id is empty"),
        (lambda: replace(RECORD, category=" "), InputError, "category is empty"),
        (lambda: replace(RECORD, difficulty={"a": -7}), InputError, "difficulty: a must be"),
        (lambda: replace(RECORD, difficulty=5), DatasetError, "difficulty must be a mapping"),
        (lambda: replace(RECORD, source_size=(10**12, 4)), DatasetError, "from 1 to 65,535"),
        (lambda: matches_from_cells(CORRELATION.peak[:, :1], CORRELATION, temperature=0.1), ShapeError, "cells"),
        (lambda: matches_from_points(CORRELATION.peak, CORRELATION, temperature=0), InputError, "temperature"),
        (lambda: build_components(load_preset("mini-empty"), prompt_changes={"a": 1}), InputError, "give prompt_file"),
        (
            lambda: evaluate(load_preset("mini-empty", ["data=synthetic"]), only_baselines=True),
            InputError, "only_baselines needs the names",
        ),
        (
            lambda: Row("p", "m", "x", {}, {}, NO_SCORES),
            InputError, r"pck\.image: must have the alphas",
        ),
        (lambda: BatchSplit(4, 0, 1), InputError, "devices must be"),
        (lambda: BatchSplit(4, 2, 1).indices(2), InputError, "device must be"),
        (lambda: Checkpoints("folder", keep=0), InputError, "keep must be"),
        (lambda: squash(PHOTO, (0, 4)), InputError, "height must be"),
        (lambda: pad(PHOTO, 10**12), InputError, "side must be"),
        (lambda: center_crop(PHOTO, shorter=8, side=8, **HALF), InputError, "std"),
        (lambda: random_token_vectors(FakeTextEncoder(), 3, seed=-1), InputError, "seed must be"),
        (lambda: random_token_vectors(FakeTextEncoder(), 0, seed=1), InputError, "num_tokens must be"),
        (lambda: FakeTextEncoder().tokenize([]), InputError, "texts must hold"),
        (lambda: FakeTextEncoder().template_ids(76), InputError, "num_tokens must be"),
        (lambda: FakeBackbone(side=6), InputError, "side must be a multiple of 4"),
        (lambda: FakePairs(photos=1), InputError, "photos must be"),
        (lambda: FakePairs()[6], InputError, "index must be"),
        (lambda: random_photo((0, 4)), InputError, "height of size"),
        (lambda: random_correlation(batch=0), InputError, "batch must be"),
        (lambda: check_backbone(FakeBackbone(), tolerance=-1.0), InputError, "tolerance"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert isinstance(caught.value, SD4MatchError)


def test_checkpoints_take_a_folder_as_text(tmp_path):
    assert Checkpoints(str(tmp_path)).folder == tmp_path
