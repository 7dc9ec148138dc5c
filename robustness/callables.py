"""Arguments of wrong types for every public function, constructor and method.

Each has one valid call in a table, and every argument is replaced in turn by values of other types.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

import sd4match
from robustness.cases import Case
from sd4match import (
    SemanticMatcher,
    backbones,
    config,
    contrib,
    data,
    evaluation,
    prompting,
    registry,
    testing,
    training,
    viz,
)
from sd4match.dense import DenseMatch
from sd4match.evaluation.report import DataSummary
from sd4match.evaluation.scores import AVERAGES, PairCount, Skipped
from sd4match.geometry import Grid, mask_to_cells, mask_to_model, own_frame, squash_frame
from sd4match.io.cache import Cache
from sd4match.io.features import read_features, write_features
from sd4match.matching import (
    CoPCA,
    GaussianCrossEntropy,
    GaussianCrossEntropyConfig,
    KernelSoftArgmax,
    MirroredAlignment,
    correlate_maps,
    matches_from_cells,
    matches_from_points,
)
from sd4match.matching import matchers as matchers_module
from sd4match.results import Candidates, Features, MatchResult
from sd4match.structures.images import ImageBatch, Photo, View, Views
from sd4match.structures.pairs import PairBatch, PairKey, PairRecord
from sd4match.structures.specs import FeatureSpec, ImageFeatureSpec
from sd4match.structures.tensors import (
    Correlation,
    Encoded,
    EvaluationNoise,
    FeatureMap,
    ImageFeatures,
    Keypoints,
    LossValue,
    Matches,
    ParameterGroup,
    PromptEmbedding,
    Sampling,
    TrainingNoise,
)
from sd4match.testing import FakeBackbone, FakeImageEncoder, FakePairs, FakeTextEncoder, random_photo

Calls = dict[str, tuple[Callable[..., Any], dict[str, Any]]]
"""By name: a function, and the arguments of a valid call."""

VALUES: dict[str, Any] = {
    "None": None, "a text": "x", "5": 5, "-1": -1, "True": True, "a list": [], "a mapping": {},
    "an array": np.zeros(2), "an object": object(), "a class": dict,
}  # fmt: skip
"""What replaces each argument, by name."""

_TAKEN: dict[str, tuple[str, ...]] = {
    "None": ("None",), "str": ("a text",), "int": ("5", "-1"), "float": ("5", "-1"), "bool": ("True",),
    "Sequence": ("a list",), "Iterable": ("a list",), "list": ("a list",), "Mapping": ("a mapping",),
    "dict": ("a mapping",), "NDArray": ("an array",), "ndarray": ("an array",), "PointArray": ("an array",),
    "Points": ("an array", "a list"), "Point": ("an array", "a list"), "Target": ("a class",),
    "ComponentClass": ("a class",),
    "Any": tuple(VALUES), "object": tuple(VALUES),
}  # fmt: skip
"""Which values the words of an annotation, outside of brackets, may take; they may be refused for other reasons."""


_SYNONYMS = {
    "photo": ("image",), "source": ("photo",), "target": ("photo",), "pixels": ("a photo is",), "image": ("photo",),
    "source_size": ("its size",), "target_size": ("its size",), "source_box": ("its box",), "target_box": ("its box",),
    "lower_bound": ("lower bound",), "config": ("component",),
}  # fmt: skip
"""Words by which messages name an argument otherwise."""


def cases(base: Path) -> Iterator[Case]:
    """Yield every valid call, and every call with one argument of another type."""
    for name, (function, arguments) in {**light_calls(base), **heavy_calls(base)}.items():
        yield _case(f"{name}: valid", function, arguments, (), differ=True)
        for argument, what, taken in replacements(function, arguments):
            changed = {**arguments, argument: VALUES[what]}
            yield _case(
                f"{name}({argument}: {what})",
                function,
                changed,
                () if taken else (argument, *_SYNONYMS.get(argument, ())),
                differ=taken,
            )


def _case(title: str, function: Callable[..., Any], call: Mapping[str, Any], names: tuple[str, ...], *, differ: bool) -> Case:  # fmt: skip # noqa: E501
    def act(folder: Path) -> Any:
        return function(**call)

    return Case("functions", title, act, names, may_differ=differ)


def replacements(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Yield (argument, name of the value in `VALUES`, whether it may be taken) for each argument of a call."""
    parameters = inspect.signature(function).parameters
    for argument in arguments:
        taken = allowed(str(parameters[argument].annotation)) if argument in parameters else set(VALUES)
        default = parameters[argument].default if argument in parameters else inspect.Parameter.empty
        for what, value in VALUES.items():
            yield argument, what, what in taken or value is default


def allowed(annotation: str) -> set[str]:
    """Return names of the values of `VALUES` that an annotation may take.

    >>> sorted(allowed("Mapping[str, Any] | None"))
    ['None', 'a mapping']
    """
    while (shorter := re.sub(r"\[[^\[\]]*\]", "", annotation)) != annotation:
        annotation = shorter
    return {value for word in re.findall(r"\w+", annotation) for value in _TAKEN.get(word, ())}


def _setter(instance: object, name: str) -> Callable[..., Any]:
    """Return a function that assigns an attribute, which is its only argument."""

    def assign(**value: Any) -> None:
        setattr(instance, name, value[name])

    annotation = type(instance).__annotations__[name]
    parameter = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation)
    vars(assign)["__signature__"] = inspect.Signature([parameter])
    return assign


def _counts() -> dict[str, Any]:
    return {
        "pair_ids": ("a", "b"), "categories": ("cat", "cat"), "visible": np.array([3, 4]),
        "correct": np.array([[1], [2]]), "alphas": (0.1,), "left_out": 0, "difficulty": ({"flag": 1}, {}),
        "skipped": (Skipped("c", "it cannot be read"),), "kept": None,
    }  # fmt: skip


def light_calls(base: Path) -> Calls:  # one table
    """Return valid calls of everything that needs no weights and no training."""
    photo, backbone = random_photo(), FakeBackbone(text_encoder=FakeTextEncoder())
    without_prompt = FakeBackbone()
    without_prompt.spec = replace(without_prompt.spec, prompt_width=None, max_length=0)
    sampling, pairs = Sampling(50), FakePairs(pairs=3)
    correlation = testing.random_correlation()
    maps, points, cells = correlation.source, correlation.query_points, correlation.peak
    frame, grid = squash_frame((24, 32), (32, 32)), correlation.target.grid
    visible = torch.ones(2, 3, dtype=torch.bool)
    keypoints, images = Keypoints(points, visible), data.make_images([photo], ["cat"], {"backbone": backbone.prepare})
    view = backbone.prepare(photo)
    views = Views((view,))
    prompt = prompting.EmptyPrompt(backbone=backbone)
    single_config = prompting.SinglePromptConfig(num_tokens=3)
    text = prompting.TextPromptConfig(template="{category}").build(backbone=backbone)
    photo_maps = prompting.pair_maps(backbone, prompt, images, images, sampling)
    single = single_config.build(backbone=backbone)
    file = base / "prompt.safetensors"
    prompting.save_prompt(single, file, backbone=backbone)
    map_file = base / "map.safetensors"
    one_map = maps[[0]]
    write_features(one_map, map_file, provenance={})
    counts = _counts()
    scores = evaluation.PairScores(**counts)
    row = {
        "prompt": "p", "matcher": "m", "protocol": "sd4match", "pck": {name: scores.pck(name) for name in AVERAGES},
        "ci95": {name: {"0.1": (0.4, 0.6)} for name in AVERAGES}, "scores": scores, "extra": {},
    }  # fmt: skip
    comparison = {"a": "a", "b": "b", "metric": "m", "difference": 0.1, "ci95": (0.0, 0.2)}
    summary = {
        "name": "fake", "split": "test", "pairs": 3, "published_pairs": None, "complete": False,
        "pair_list_digest": "d", "categories": ("cat",), "reference": "box",
    }  # fmt: skip
    preset = config.load_preset("mini-empty", ["evaluation.protocol.alphas=[0.1]"])
    report = {
        "results": (evaluation.Row(**row),), "comparisons": (evaluation.Comparison(**comparison),), "baselines": (),
        "protocol": "sd4match", "data": DataSummary(**summary), "not_comparable_because": (), "published": (),
        "backbone": None, "config": preset.model_dump(mode="json"), "seed": 0,
        "versions": {"sd4match": "1", "torch": "2"}, "platform": "p", "wall_seconds": 1.0, "extra": {},
    }  # fmt: skip
    made = evaluation.Report(**report)
    evaluation.write_report(made, base / "saved", title="t")
    pair_picture = {
        "pair_id": "p", "category": "cat", "row": "text", "rank": "worst", "correct": 1, "visible": 2,
        "drawn_correct": 1, "picture": Image.new("RGB", (8, 8)),
    }  # fmt: skip
    record = {
        "pair_id": "p", "source_id": "s", "target_id": "t", "category": "cat", "target_category": None,
        "source_size": (24, 32), "target_size": (24, 32), "source_points": np.ones((2, 2)),
        "target_points": np.ones((2, 2)), "visible": np.ones(2, dtype=bool), "source_box": None,
        "target_box": (0.0, 0.0, 5.0, 5.0), "difficulty": {"flag": 1},
    }  # fmt: skip
    key = {name: record[name] for name in ("pair_id", "source_id", "target_id", "category", "target_category")}
    parts = {
        "backbone": backbone, "prompt": prompt, "matcher": KernelSoftArgmax(), "sampling": sampling,
        "pair_transform": None, "protocol": None, "config": None,
    }  # fmt: skip
    matcher = SemanticMatcher(**parts)
    built = {
        "backbone": backbone, "prompt": prompt, "matcher": KernelSoftArgmax(), "loss": GaussianCrossEntropy(),
        "pair_transform": None,
    }  # fmt: skip
    components = config.Components(**built)
    protocol = config.get_protocol("sd4match")
    features, found = matcher.extract(photo, category="cat"), matcher.match(photo, photo, category="cat", grid=2)
    everywhere = torch.ones(frame.original_size, dtype=torch.bool)
    calibration = evaluation.Calibration(np.ones(2), np.ones(2, dtype=bool))
    picture, array = photo.to_image(), np.array([[1.0, 2.0]])
    evaluator = {
        "backbone": backbone, "protocol": protocol, "matchers": {"m": KernelSoftArgmax()}, "sampling": sampling,
        "batch_size": 2, "maps": None, "scratch": None, "memory": 10**6, "map_dtype": torch.float32,
        "skip_bad": False, "pair_transform": None,
    }  # fmt: skip
    trainer = {
        "backbone": backbone, "prompt": single, "loss": GaussianCrossEntropy(),
        "config": config.TrainingConfig(steps=1, batch_size=1), "train_data": pairs, "validation_data": pairs,
        "validation_matcher": KernelSoftArgmax(), "protocol": protocol, "validation_batch_size": 2,
    }  # fmt: skip
    checkpoint = {"step": 1, "tensors": {"a/b": torch.zeros(1)}, "state": {}, "origin": {}, "name": "n"}
    checkpoints = training.Checkpoints(base / "checkpoints")
    checkpoints.write(training.Checkpoint(**checkpoint), best_step=1)
    run = training.TrainingRun()
    history = {
        "columns": ("loss",), "rows": [(1.0,)], "validation": [(0, 0.5)], "best_step": 0, "best_pck": 0.5,
        "best_scores": None, "batch_split": None, "seconds": 0.0, "stopped": False,
    }  # fmt: skip
    nothing = lambda *arguments: None  # noqa: E731 - any callback
    spec = {
        "channels": 4, "stride": 4, "prompt_width": 8, "max_length": 16, "layers": 1, "native_size": (8, 8),
        "size_multiple": 4, "architecture": "a", "layer": None, "frame": "squash", "dtype": "float32", "groups": (),
        "options": "",
    }  # fmt: skip
    batch = data.make_pairs([pairs[0]], pairs, {"backbone": backbone.prepare})
    pair_batch = {name: getattr(batch, name) for name in ("source", "target", "source_points", "target_points")}
    matched = {
        "source": photo,
        "target": photo,
        "source_points": array,
        "target_points": array,
        "scores": np.ones(1),
        "indices": np.zeros(1, dtype=np.int64),
    }
    dense = {
        "source": photo, "target": photo, "grid": Grid((own_frame(photo.size),), (2, 3), "centers"),
        "target_points": np.ones((2, 3, 2)), "scores": np.ones((2, 3)), "backward": None,
        "valid": np.ones((2, 3), dtype=bool),
    }  # fmt: skip
    flow = DenseMatch(**dense)
    there = replace(flow, backward=flow)
    mask = np.ones(photo.size, dtype=bool)
    candidates = {
        "source_points": np.ones((2, 2)), "target_points": np.ones((2, 3, 2)), "scores": np.ones((2, 3)),
    }  # fmt: skip
    both = {"images": images, "partners": None}
    matchers: Calls = {
        name: (getattr(matchers_module, name)().__call__, {"correlation": correlation})
        for name in (
            "NearestNeighbor", "SoftArgmax", "KernelSoftArgmax", "WindowSoftArgmax", "BilinearNearestNeighbor",
            "PixelNearestNeighbor",
        )
    }  # fmt: skip
    builds: Calls = {
        f"{kind}.build": (getattr(prompting, kind)(**fields).build, {"backbone": backbone, "initialize": True})
        for kind, fields in (
            ("TextPromptConfig", {}), ("EmptyPromptConfig", {}), ("NoPromptConfig", {}),
            ("SinglePromptConfig", {"num_tokens": 3}), ("ClassPromptConfig", {"num_tokens": 3, "categories": ("cat",)}),
        )
    }  # fmt: skip
    return matchers | builds | {
        "load_prompt": (sd4match.load_prompt, {"path": file, "backbone": backbone, "changes": None}),
        "load_components": (prompting.load_components, {"path": file}),
        "read_prompt": (prompting.read_prompt, {"path": file, "changes": None}),
        "save_prompt": (
            sd4match.save_prompt,
            {"prompt": single, "path": base / "p.st", "backbone": backbone, "details": {}, "components": None},
        ),
        "PromptInfo": (
            prompting.PromptInfo,
            {
                "components": {},
                "config": prompting.EmptyPromptConfig(), "architecture": "a", "fingerprint": "f",
                "library_version": "1", "details": {},
            },
        ),
        "encode_token_vectors": (
            prompting.encode_token_vectors,
            {"text_encoder": backbone.text_encoder, "vectors": torch.zeros(1, 3, 8)},
        ),
        "random_token_vectors": (
            prompting.random_token_vectors, {"text_encoder": backbone.text_encoder, "num_tokens": 3, "seed": 0},
        ),
        "export_textual_inversion": (
            prompting.export_textual_inversion,
            {"prompt": single, "path": base / "e.st", "backbone": backbone, "token": "<x>", **both},
        ),
        "pair_maps": (
            prompting.pair_maps,
            {"backbone": backbone, "prompt": prompt, "source": images, "target": images, "sampling": sampling},
        ),
        "pair_prompts": (prompting.pair_prompts, {"prompt": prompt, "source": images, "target": images}),
        "TextPrompt": (prompting.TextPrompt, {"config": None, "backbone": backbone}),
        "EmptyPrompt": (prompting.EmptyPrompt, {"config": None, "backbone": backbone}),
        "NoPrompt": (prompting.NoPrompt, {"config": None, "backbone": None}),
        "SinglePrompt": (
            prompting.SinglePrompt, {"config": single_config, "backbone": backbone, "initialize": True},
        ),
        "EmptyPrompt()": (prompt.forward, both), "SinglePrompt()": (single.forward, both),
        "TextPrompt()": (text.forward, both),
        "SinglePrompt.token_vectors": (single.token_vectors, both),
        "for_categories": (prompting.ClassPromptConfig().for_categories, {"categories": ["cat"]}),
        "check_spec": (single_config.check_spec, {"spec": backbone.spec}),
        "load_preset": (sd4match.load_preset, {"name": "mini-empty", "overrides": []}),
        "parse_config": (config.parse_config, {"text": "preset: mini-empty", "origin": "here", "overrides": ()}),
        "get_protocol": (config.get_protocol, {"name": "dift"}),
        "register_protocol": (config.register_protocol, {"protocol": protocol.derive(name="of-a-test")}),
        "error_frame_of": (protocol.error_frame_of, {"size": (4, 6)}),
        "aligned": (protocol.aligned, {"features": maps}),
        "protocol.correlate": (protocol.correlate, {"source": maps, "target": maps, "query_points": points}),
        "protocol.correct": (
            protocol.correct,
            {
                "predicted": points, "target": points, "visible": visible, "photo_sizes": [(24, 32)] * 2,
                "boxes": [(0.0, 0.0, 5.0, 5.0)] * 2, "reference": "box",
            },
        ),
        "sampling": (config.SamplingConfig().sampling, {"seed": 0}),
        "model_copy": (preset.model_copy, {"update": {}, "deep": False}),
        "Components": (config.Components, built),
        "build_components": (
            config.build_components,
            {
                "config": preset, "backbone": backbone, "prompt_file": None, "prompt_changes": None, "device": "cpu",
                "cache": None,
            },
        ),
        "build_dataset": (
            config.build_dataset, {"config": config.load_preset("mini-empty", ["data=synthetic"]), "split": "test"},
        ),
        "SemanticMatcher": (SemanticMatcher, parts),
        **{
            f"matcher.{name} =": (_setter(matcher, name), {name: given}) for name, given in parts.items() if given
        },
        "from_components": (SemanticMatcher.from_components, {"components": components, "config": preset}),
        "feature_map": (matcher.feature_map, {"photo": photo, "category": "cat"}),
        "Features": (
            Features, {"photo": photo, "map": features.map, "scope": "dataset", "category": "cat", "origin": ""},
        ),
        "Features.to": (features.to, {"device": "cpu"}),
        "filter": (found.filter, {"min_score": 0.5}), "draw": (found.draw, {"height": 100, "title": "t"}),
        "save": (found.save, {"folder": base / "matches", "details": {"a": 1}, "pictures": {"heat": picture}}),
        "to": (matcher.to, {"device": "cpu"}),
        "mask_to_cells": (mask_to_cells, {"mask": everywhere, "grid": Grid((frame,), (8, 8))}),
        "mask_to_model": (mask_to_model, {"mask": everywhere, "frame": frame}),
        "Calibration": (evaluation.Calibration, {"scores": np.ones(2), "correct": np.ones(2, dtype=bool)}),
        "Calibration.table": (calibration.table, {"bins": 4}),
        "Calibration.threshold_for": (calibration.threshold_for, {"precision": 0.5}),
        "Calibration.plot": (calibration.plot, {"bins": 4, "title": "t"}),
        "plot_calibration": (viz.plot_calibration, {"table": [(0.0, 1.0, 2, 0.5)], "title": "t"}),
        "as_pipeline": (
            contrib.as_pipeline,
            {"matcher": matcher, "category": "cat", "grid": 2, "mutual": False, "batch_size": 1},
        ),
        "match_dense": (
            matcher.match_dense, {"source": photo, "target": photo, "category": "cat", "cycle": True},
        ),
        "compare": (
            evaluation.compare,
            {"a": scores, "b": scores, "average": "image", "alpha": 0.1, "samples": 10, "seed": 0},
        ),
        "PairScores": (evaluation.PairScores, counts),
        "PairScores.of": (
            evaluation.PairScores.of, {"outcomes": [PairCount("a", "cat", 2, (1,), {})], "alphas": [0.1]},
        ),
        "PairScores.pck": (scores.pck, {"average": "image"}),
        "PairScores.intervals": (scores.intervals, {"samples": 10, "seed": 0}),
        "PairCount": (
            PairCount, {"pair_id": "a", "category": "cat", "visible": 2, "correct": (1,), "difficulty": {}, "kept": 2},
        ),
        "Skipped": (Skipped, {"pair_id": "a", "reason": "r"}),
        "Row": (evaluation.Row, row), "Comparison": (evaluation.Comparison, comparison),
        "DataSummary": (DataSummary, summary), "Report": (evaluation.Report, report),
        "Report.row": (made.row, {"prompt": "p"}),
        "read_report": (evaluation.read_report, {"path": base / "saved"}),
        "write_report": (
            evaluation.write_report, {"report": made, "folder": base / "report", "title": "t", "figures": None},
        ),
        "write_page": (
            evaluation.write_page,
            {
                "report": made, "file": base / "report.html", "title": "t", "pictures": [], "remark": "r",
                "curve": picture,
            },
        ),
        "PairPicture": (evaluation.PairPicture, pair_picture),
        "choose_pairs": (evaluation.choose_pairs, {"scores": scores, "count": 1, "alpha": 0.1}),
        "pair_pictures": (
            evaluation.pair_pictures,
            {"report": made, "count": 0, "row": None, "folder": None, "device": "cpu", "progress": None},
        ),
        "plot_report_categories": (evaluation.plot_report_categories, {"report": made}),
        "plot_report_over_alpha": (evaluation.plot_report_over_alpha, {"report": made}),
        "Evaluator": (evaluation.Evaluator, evaluator),
        "Evaluator.evaluate": (
            evaluation.Evaluator(**evaluator).evaluate,
            {"dataset": pairs, "prompt": prompt, "progress": nothing, "should_stop": None},
        ),
        "Evaluator.count": (
            evaluation.Evaluator(**evaluator).count,
            {"dataset": pairs, "maps": lambda record: photo_maps, "progress": nothing},
        ),
        "evaluate_prompts": (
            evaluation.evaluate_prompts,
            {
                "config": preset, "components": components, "data": pairs, "prompts": {"p": prompt}, "maps": None,
                "scratch": None, "progress": nothing, "tell": nothing,
            },
        ),
        "make_images": (
            data.make_images, {"photos": [photo], "categories": ["cat"], "prepare": {"backbone": backbone.prepare}},
        ),
        "make_pairs": (
            data.make_pairs, {"records": [pairs[0]], "dataset": pairs, "prepare": {"backbone": backbone.prepare}},
        ),
        "first": (data.first, {"dataset": pairs, "limit": 2}),
        "of_categories": (data.of_categories, {"dataset": pairs, "names": ["left"]}),
        "Subset": (data.Subset, {"dataset": pairs, "indices": [0]}),
        "Subset[]": (data.Subset(pairs, [0]).__getitem__, {"index": 0}),
        "Subset.photo": (data.Subset(pairs, [0]).photo, {"image_id": "0"}),
        "check_split": (
            wraps(data.check_split)(lambda **call: list(data.check_split(**call))),
            {"load": lambda: pairs, "split": "test", "progress": nothing},
        ),
        "SyntheticPairs": (data.SyntheticPairs, {"config": None}),
        "PairKey": (PairKey, key), "PairRecord": (PairRecord, record),
        "PairBatch": (PairBatch, {**pair_batch, "pair_ids": batch.pair_ids}),
        "correlate_maps": (
            correlate_maps,
            {"source": maps, "target": maps, "query_points": points, "query_mode": "bilinear", "normalize": True},
        ),
        "matches_from_cells": (
            matches_from_cells, {"cells": cells, "correlation": correlation, "temperature": 0.1},
        ),
        "matches_from_points": (
            matches_from_points, {"points": points, "correlation": correlation, "temperature": 0.1},
        ),
        "GaussianCrossEntropy": (GaussianCrossEntropy, {"config": GaussianCrossEntropyConfig()}),
        "GaussianCrossEntropy()": (
            GaussianCrossEntropy().forward, {"correlation": correlation, "targets": keypoints},
        ),
        "CoPCA()": (CoPCA(components=2).__call__, {"source": maps, "target": maps}),
        "MirroredAlignment()": (
            MirroredAlignment().__call__,
            dict.fromkeys(("source", "target"), FeatureMap(maps.values, maps.grid, (3, 3))),
        ),
        "Correlation": (
            Correlation,
            {
                "values": correlation.values, "query_points": points, "source": maps, "target": maps,
                "query_mode": "bilinear", "normalize": True,
            },
        ),
        "Correlation.reversed": (correlation.reversed, {"points": points}),
        "Correlation.probability": (correlation.probability, {"temperature": 0.1}),
        "FeatureMap": (FeatureMap, {"values": maps.values, "grid": maps.grid, "groups": (), "mask": None}),
        "FeatureMap[]": (maps.__getitem__, {"rows": [0]}),
        "FeatureMap.with_grid": (maps.with_grid, {"grid": maps.grid}),
        "Grid": (Grid, {"frames": (frame,), "size": (8, 8), "alignment": "patch", "offset": 1.0}),
        "Grid[]": (grid.__getitem__, {"rows": [0]}), "ImageFrame.holds": (frame.holds, {"points": points[0]}),
        "Keypoints": (Keypoints, {"points": points, "visible": visible}),
        "Matches": (Matches, {"points": points, "scores": torch.ones(2, 3), "valid": None}),
        "LossValue": (LossValue, {"value": torch.tensor(1.0), "lower_bound": None}),
        "ParameterGroup": (ParameterGroup, {"name": "a", "parameters": (), "scale": 1.0}),
        "PromptEmbedding": (PromptEmbedding, {"values": torch.zeros(1, 16, 8)}),
        "ImageFeatures": (ImageFeatures, {"local": torch.zeros(1, 2, 3), "pooled": torch.zeros(1, 3)}),
        "Encoded": (Encoded, {"tensors": {}, "frames": (frame,), "keys": ("k",), "names": ("n",)}),
        "EvaluationNoise": (EvaluationNoise, {"seed": 0}),
        "TrainingNoise": (TrainingNoise, {"seed": 0, "step": 1, "indices": (0,)}),
        "Sampling": (
            Sampling,
            {
                "timestep": 50, "ensemble_size": 1, "noise": EvaluationNoise(), "posterior": "image",
                "ensemble": "matched",
            },
        ),
        "FeatureSpec": (FeatureSpec, spec),
        "ImageFeatureSpec": (ImageFeatureSpec, {"patches": 1, "local": 2, "pooled": 3}),
        "Photo": (Photo, {"pixels": photo.pixels, "name": "n", "mask": None}),
        "Photo.from_array": (Photo.from_array, {"array": photo.pixels, "name": "n", "mask": None}),
        "Photo.from_image": (Photo.from_image, {"image": picture, "exif": True, "name": "n"}),
        "View": (View, {"pixels": view.pixels, "frame": view.frame, "key": "k", "name": "n", "mask": None}),
        "Views": (Views, {"views": (view,)}), "Views.of": (Views.of, {"views": [view]}),
        "Views[]": (views.__getitem__, {"rows": [0]}), "Views+": (views.__add__, {"more": views}),
        "ImageBatch": (ImageBatch, {"views": {}, "categories": ("cat",), "photos": (photo,)}),
        "ImageBatch+": (images.__add__, {"more": images}),
        "MatchResult": (MatchResult, matched), "DenseMatch": (DenseMatch, dense),
        "DenseMatch.at": (flow.at, {"points": array}),
        "DenseMatch.warp": (flow.warp, {"photo": picture, "nearest": True}),
        "DenseMatch.consistent": (there.consistent, {"cells": 1.5}),
        "DenseMatch.transfer": (there.transfer, {"mask": mask}), "DenseMatch.swap": (flow.swap, {"mask": mask}),
        "DenseMatch.draw": (flow.draw, {"height": 40}),
        "draw_dense": (viz.draw_dense, {"match": flow, "height": 40}),
        **_pictures(one_map, flow),
        "Candidates": (Candidates, candidates),
        "squash": (backbones.squash, {"photo": photo, "size": (16, 16)}),
        "pad": (backbones.pad, {"photo": photo, "side": 16}),
        "center_crop": (
            backbones.center_crop,
            {"photo": photo, "shorter": 20, "side": 16, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
        ),
        "cached": (backbones.cached, {"backbone": backbone, "cache": None}),
        "CachedBackbone": (backbones.CachedBackbone, {"backbone": backbone, "max_bytes": 1000, "cache": None}),
        "find_pretrained": (backbones.find_pretrained, {"weights": "mini", "kind": "stable_diffusion"}),
        "Fusion": (backbones.Fusion, {"config": None, "backbones": [FakeBackbone(), without_prompt]}),
        "HogBackbone": (backbones.HogBackbone, {"config": backbones.HogConfig(image_size=32, cell=8, window=3)}),
        "MirroredBackbone": (backbones.MirroredBackbone, {"backbone": backbone}),
        "DebiasedBackbone": (
            backbones.DebiasedBackbone,
            {"config": backbones.DebiasedConfig(backbone=backbones.HogConfig()), "backbone": backbone},
        ),
        "BatchSplit": (training.BatchSplit, {"batch_size": 4, "devices": 2, "per_device": 2}),
        "BatchSplit.indices": (training.BatchSplit(4, 2, 2).indices, {"device": 0}),
        "Checkpoint": (training.Checkpoint, checkpoint),
        "Checkpoints": (training.Checkpoints, {"folder": base / "checkpoints", "keep": 2, "origin": None}),
        "Checkpoints.read": (checkpoints.read, {"step": 1}),
        "Checkpoints.write": (
            checkpoints.write, {"checkpoint": training.Checkpoint(**checkpoint), "best_step": 1},
        ),
        "TrainingRun": (training.TrainingRun, history), "TrainingRun.column": (run.column, {"name": "loss"}),
        "TrainingRun.is_validated": (run.is_validated, {"step": 0}),
        "TrainingRun.has_stalled": (run.has_stalled, {"patience": 2}),
        "TrainerCallbacks": (
            training.TrainerCallbacks,
            {
                "on_batch_split": nothing, "on_step": nothing, "on_validation_progress": nothing,
                "on_validation": nothing,
            },
        ),
        "Trainer": (training.Trainer, {**trainer, "matcher": None, "pair_transform": None}),
        "token_labels": (
            prompting.token_labels, {"prompt": prompt, "images": images, "partners": None, "backbone": backbone},
        ),
        "TextPrompt.text": (text.text, {"category": "cat"}),
        "draw_matches": (
            viz.draw_matches,
            {
                "source": photo, "target": photo, "source_points": array, "target_points": array, "hits": [True],
                "scores": [0.5], "truth": array, "title": "t", "height": 40,
            },
        ),
        "stack": (viz.stack, {"pictures": [picture]}),
        "draw_contact_sheet": (
            viz.draw_contact_sheet,
            {"pictures": [picture], "captions": ["c"], "columns": 1, "cell_width": 40, "title": "t"},
        ),
        "plot_training": (
            viz.plot_training,
            {"losses": [1.0, 2.0], "validation": [(1, 0.5)], "excess_losses": (), "title": "t"},
        ),
        "plot_pck_over_alpha": (
            viz.plot_pck_over_alpha,
            {"rows": {"a": {0.1: 0.5}}, "intervals": {"a": {0.1: (0.4, 0.6)}}, "title": "t"},
        ),
        "plot_pck_over": (
            viz.plot_pck_over,
            {"values": [0, 1], "rows": {"a": [0.5, 0.6]}, "intervals": None, "xlabel": "timestep", "title": "t"},
        ),
        "plot_bars": (
            viz.plot_bars,
            {"rows": {"a": 0.5}, "intervals": {"a": (0.4, 0.6)}, "published": {"a": 0.7}, "title": "t"},
        ),
        "plot_categories": (
            viz.plot_categories,
            {"rows": {"a": {"cat": 0.5}}, "intervals": {"a": {"cat": (0.4, 0.6)}}, "title": "t"},
        ),
        "figure_to_image": (viz.figure_to_image, {"figure": Figure(figsize=(1, 1)), "scale": 1}),
        "write_features": (write_features, {"features": one_map, "path": base / "f.st", "provenance": {}}),
        "read_features": (read_features, {"path": map_file}),
        "Cache": (Cache, {"folder": base / "cache", "limit": 1000, "dtype": None}),
        "random_photo": (random_photo, {"size": (4, 6), "seed": 0}),
        "random_correlation": (
            testing.random_correlation, {"batch": 1, "points": 2, "map_size": (3, 3), "channels": 2, "seed": 0},
        ),
        "FakeBackbone": (FakeBackbone, {"side": 16, "text_encoder": None}),
        "FakeBackbone.prepare": (backbone.prepare, {"photo": photo}),
        "FakeBackbone.encode": (backbone.encode, {"views": views}),
        "FakeBackbone.extract": (
            backbone.extract, {"encoded": backbone.encode(views), "prompt": None, "sampling": sampling},
        ),
        "FakeImageEncoder.prepare": (FakeImageEncoder().prepare, {"photo": photo}),
        "FakePairs": (FakePairs, {"pairs": 2, "photos": 2, "points": 2, "invisible_pair": None, "split": "test"}),
        "FakePairs[]": (pairs.__getitem__, {"index": 0}), "FakePairs.photo": (pairs.photo, {"image_id": "0"}),
        "FakeTextEncoder.tokenize": (FakeTextEncoder().tokenize, {"texts": ["a"]}),
        "FakeTextEncoder.template_ids": (FakeTextEncoder().template_ids, {"num_tokens": 2}),
        "check_backbone": (testing.check_backbone, {"backbone": FakeBackbone(), "sampling": None, "tolerance": 1e-4}),
        "check_dataset": (testing.check_dataset, {"dataset": pairs, "limit": 1, "margin": 0.0}),
        "check_image_encoder": (
            testing.check_image_encoder, {"encoder": FakeImageEncoder(), "backbone": backbone, "tolerance": 1e-4},
        ),
        "check_loss": (testing.check_loss, {"loss": GaussianCrossEntropyConfig(), "tolerance": 1e-4}),
        "check_matcher": (testing.check_matcher, {"matcher": KernelSoftArgmax(), "tolerance": 1e-4}),
        "check_pair_transform": (
            testing.check_pair_transform, {"transform": CoPCA(components=2), "spec": backbone.spec, "tolerance": 1e-3},
        ),
        "check_prompt": (
            testing.check_prompt,
            {"prompt": single, "backbone": backbone, "categories": ("cat", "dog"), "tolerance": 1e-5},
        ),
        "matchers.config_class": (registry.matchers.config_class, {"kind": "soft_argmax"}),
        "register": (registry.register, {"config": KernelSoftArgmax}),
        **{
            f"register_{sort}": (getattr(registry, f"register_{sort}"), {"kind": "robustness"})
            for sort in ("backbone", "dataset", "image_encoder", "loss", "matcher", "pair_transform", "prompt")
        },
    }  # fmt: skip


def _pictures(features: FeatureMap, match: DenseMatch) -> Calls:
    """Return valid calls of pictures on photos."""
    correlation = correlate_maps(features, features, torch.ones(1, 1, 2))
    photo = random_photo(features.grid.frames[0].original_size)
    values = features.values[0, 0]
    return {
        "draw_heat_map": (
            viz.draw_heat_map,
            {
                "photo": photo, "values": values, "grid": features.grid, "point": (1.0, 2.0), "truth": (2.0, 1.0),
                "title": "t", "height": 40, "legend": True,
            },
        ),
        "draw_heat_maps": (
            viz.draw_heat_maps,
            {
                "source": photo, "target": photo, "correlations": {"a": correlation}, "query": 0, "truth": (2.0, 1.0),
                "title": "t", "height": 40,
            },
        ),
        "draw_correspondence": (viz.draw_correspondence, {"match": match, "title": "t", "height": 40}),
        "draw_warp": (viz.draw_warp, {"match": match, "title": "t", "height": 40}),
        "draw_features": (
            viz.draw_features,
            {"photos": [photo], "maps": [features], "captions": ["a"], "title": "t", "height": 40},
        ),
        "principal_components": (viz.principal_components, {"maps": [features], "count": 2}),
        "draw_attention": (
            viz.draw_attention,
            {"photo": photo, "attention": features, "labels": {0: "a"}, "title": "t", "height": 40},
        ),
    }  # fmt: skip


def heavy_calls(base: Path) -> Calls:
    """Return valid calls of what loads weights, evaluates or trains."""
    small = [
        "data=synthetic", "data.photos_per_category=2", "evaluation.limit=1", "evaluation.bootstrap_samples=10",
    ]  # fmt: skip
    empty, photo = config.load_preset("mini-empty", small), random_photo()
    single = config.load_preset("mini-single", [*small, "training.steps=1", "training.batch_size=1",
                                                "training.validation_pairs=1"])  # fmt: skip
    backbone = backbones.StableDiffusionConfig(weights="mini").build()
    matcher = SemanticMatcher.from_preset("mini-empty", device="cpu")
    return {
        "token_attention": (
            backbones.token_attention,
            {
                "backbone": backbone, "photo": photo, "sampling": Sampling(50), "cells": None,
                "prompt": PromptEmbedding(torch.zeros(1, 77, backbone.spec.prompt_width)),
            },
        ),
        "attention": (matcher.attention, {"photo": photo, "category": "cat", "pair": None}),
        "evaluate": (
            evaluation.evaluate,
            {
                "config": empty, "split": "test", "prompt": None, "prompt_changes": None, "against": None,
                "baselines": (), "only_baselines": False, "maps": None, "scratch": None, "device": "cpu",
                "progress": lambda *arguments: None, "tell": lambda line: None,
            },
        ),
        "from_preset": (
            SemanticMatcher.from_preset,
            {"name": "mini-empty", "prompt": None, "overrides": (), "device": "cpu"},
        ),
        "from_config": (SemanticMatcher.from_config, {"config": empty, "prompt": None, "device": "cpu"}),
        "train": (
            wraps(training.train)(
                lambda **call: training.train(**{"components": config.build_components(single), **call})
            ),
            {
                "config": single, "output": base / "training", "prompt_file": None, "resume": False,
                "stop": lambda: True, "callbacks": None,
            },
        ),
        "draw_grid": (viz.draw_grid, {"rows": [("a", [photo], [photo.to_image()])], "title": "t"}),
        "compare_reports": (
            evaluation.compare_reports,
            {"a": base / "a", "b": base / "b", "row_a": None, "row_b": None, "samples": 10, "seed": 0},
        ),
    }  # fmt: skip
