"""Every public callable refuses arguments of other types by name: a sample of what `make robustness` tries."""

from __future__ import annotations

import inspect
import json
from importlib import import_module
from pathlib import Path

import pytest

from helpers.direct import no_type_checker  # noqa: F401 - a fixture of all tests here
from robustness.callables import VALUES, allowed, light_calls, replacements
from robustness.functions import FUNCTIONS
from sd4match.errors import SD4MatchError
from sd4match.registry import Config

SURFACE = json.loads((Path(__file__).parent / "public_surface.json").read_text(encoding="utf-8"))
SLOW = (
    "plot_training",
    "write_page",
    "plot_report_categories",
    "build_components",
    "evaluate_prompts",
    "Evaluator.evaluate",
    "PixelNearestNeighbor",
)
"""Calls that take long if an argument may be taken."""
SAMPLE = ("a text", "None", "an object", "-1", "a list", "an array", "True", "a mapping", "5", "a class")
ELSEWHERE = {
    "load_config": "tests/config", "from_hub": "tests/prompting", "push_to_hub": "tests/prompting",
    "read_published": "tests/prompting", "load_painter": "tests/viz", "paint": "tests/viz",
    "sweep_prompts": "tests/training", "sweep_fields": "tests/training", "target_names": "no argument",
    "reproduce": "tests/reproduction", "ReproductionSettings": "tests/reproduction",
    "preset_names": "no argument", "own_frame": "tests/test_geometry_refused.py",
    "padded_size": "tests/test_geometry_refused.py", "Backbone": "an interface", "ImageEncoder": "an interface",
    "NoiseEnsemble": "an interface", "as_vismatch": "tests/contrib", "calibrate": "tests/evaluation",
    "TimmBackbone": "weights",
    "TextEncoder": "an interface", "Prompt": "an interface", "PairDataset": "an interface",
    "MatchingLoss": "an interface", "ClipTextEncoder": "weights", "StableDiffusionBackbone": "weights",
    "VisionTransformerBackbone": "weights", "PretrainedModel": "a constant", "ImageFrame": "geometry",
    "AP10KPairs": "files", "FolderPairs": "files", "PFPascalPairs": "files", "PFWillowPairs": "files",
    "SPairPairs": "files", "ClassPrompt": "its config", "ConditionalPrompt": "weights", "ImplicitCaptioner": "weights",
    "Registry": "tests/registry", "FakeImageEncoder": "no argument", "FakeTextEncoder": "no argument",
    "pretend_accelerator": "no argument", "check_plugin": "tests/testing", "PluginCheck": "an answer",
    **dict.fromkeys(
        ("evaluate", "train", "compare_reports", "draw_grid", "token_attention"), "robustness.callables.heavy_calls"
    ),
    "all_protocols": "no argument", "build_app": "tests/app", "launch_options": "no argument",
    **dict.fromkeys(
        (
            "boxes", "cells", "correlations", "experiment_configs", "feature_maps", "frames", "grids", "keypoints",
            "pair_batches", "photos", "points", "prompt_configs", "protocols", "sizes", "values", "visibility",
        ),
        "strategies, which hypothesis checks when it draws",
    ),
    **dict.fromkeys(
        (
            "full_precision", "gaussian_cross_entropy_with_bound", "interpolated_norm", "log_match_probability",
            "mass_around", "mean_cell", "smoothed_target", "upsampled_nearest_neighbor", "weighted_concatenation",
        ),
        "tests/matching",
    ),
}  # fmt: skip
"""Public callables that no table of robustness has, and who tries them."""


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    return light_calls(tmp_path_factory.mktemp("calls"))


def test_wrong_types_are_refused_by_name(calls, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrong = []
    for number, (name, (function, arguments)) in enumerate(calls.items()):
        for argument, what, taken in replacements(function, arguments):
            if (name in SLOW and taken) or SAMPLE.index(what) not in (0, 1 + number % 9):
                continue
            try:
                function(**{**arguments, argument: VALUES[what]})
            except SD4MatchError:
                continue
            except Exception as error:
                wrong.append(f"{name}({argument}: {what}): {type(error).__name__}: {error}")
            else:
                if not taken:
                    wrong.append(f"{name}({argument}: {what}) is accepted")
    assert not wrong


@pytest.mark.filterwarnings("ignore")
def test_valid_calls_are_valid_and_complete(calls):
    for name, (function, arguments) in calls.items():
        parameters = inspect.signature(function).parameters.values()
        named = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        assert set(named) <= set(arguments), name
        if name not in SLOW:
            function(**arguments)


def test_the_tables_have_every_public_callable(calls):
    tried = {inspect.unwrap(f) for f, _ in [*calls.values(), *FUNCTIONS.values()]}
    missing = []
    for module, names in SURFACE.items():
        for name in names:
            if name in ELSEWHERE:
                continue
            value = getattr(import_module(module), name)
            is_config = inspect.isclass(value) and issubclass(value, (Config, Exception))
            if not (inspect.isclass(value) or inspect.isfunction(value)) or is_config:
                continue
            if inspect.unwrap(value) not in tried:
                missing.append(f"{module}.{name}")
    assert not missing


def test_words_outside_of_brackets_say_what_is_allowed():
    assert allowed("Mapping[str, Any] | None") == {"None", "a mapping"}
    assert allowed("float | Tensor") == {"5", "-1"}
