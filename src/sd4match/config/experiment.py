"""An experiment as one frozen tree of settings: read from YAML, overridden, checked, and built into components.

Everything that cannot work together is refused here, before any weights load.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import Field, NonNegativeInt, ValidationError, model_validator

from sd4match import registry
from sd4match.backbones.config import BackboneConfig, StableDiffusionConfig
from sd4match.config.sections import CacheSettings as CacheSettings
from sd4match.config.sections import EvaluationSettings as EvaluationSettings
from sd4match.config.sections import SamplingSettings as SamplingSettings
from sd4match.config.sections import TrainingSettings as TrainingSettings
from sd4match.data.config import DatasetConfig, Split, SyntheticConfig
from sd4match.errors import ConfigError, choose_from
from sd4match.matching.config import GaussianCrossEntropyConfig, KernelSoftArgmaxConfig
from sd4match.prompting.config import EmptyPromptConfig, PromptConfig
from sd4match.registry import AnyBackbone, AnyDataset, AnyLoss, AnyMatcher, AnyPairTransform, AnyPrompt, Settings

if TYPE_CHECKING:
    from sd4match.interfaces import Backbone, Matcher, MatchingLoss, PairDataset, PairTransform, PromptProvider
    from sd4match.io.cache import Cache


class ExperimentConfig(Settings):
    """Everything that decides a number. One YAML file holds one."""

    seed: NonNegativeInt | None = Field(
        None, description="of all that is learned: laid under training.seed and prompt.seed, unless these are given"
    )

    backbone: AnyBackbone = StableDiffusionConfig()
    prompt: AnyPrompt = EmptyPromptConfig()
    matcher: AnyMatcher = KernelSoftArgmaxConfig()
    pair_transform: AnyPairTransform | None = Field(None, description="of the two maps of a pair, before matching")
    loss: AnyLoss = GaussianCrossEntropyConfig()
    data: AnyDataset = SyntheticConfig()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    cache: CacheSettings = CacheSettings()

    @model_validator(mode="before")
    @classmethod
    def _one_seed(cls, tree: Any) -> Any:
        if not isinstance(tree, dict) or tree.get("seed") is None:
            return tree
        below = {"training": tree.get("training", {}), "prompt": tree.get("prompt", {"kind": "empty"})}
        if isinstance(below["prompt"], str):
            below["prompt"] = {"kind": below["prompt"]}
        if isinstance(below["prompt"], dict) and not registry.prompts.has_field(below["prompt"].get("kind"), "seed"):
            del below["prompt"]
        laid = {name: {"seed": tree["seed"], **one} for name, one in below.items() if isinstance(one, dict)}
        return {**tree, **laid}

    @model_validator(mode="after")
    def _fits_together(self) -> ExperimentConfig:
        if isinstance(self.backbone, BackboneConfig):
            spec = self.backbone.spec()
            size = getattr(self.backbone, "image_size", None)
            if size is not None and size % spec.size_multiple:
                raise ConfigError(
                    f"backbone.image_size = {size} does not fit backbone ({spec.architecture}): "
                    f"it must be a multiple of {spec.size_multiple}"
                )
            view = self.evaluation.measurement.view
            if spec.frame != view:
                raise ConfigError(
                    f"evaluation.measurement = {self.evaluation.measurement.name!r} counts on photos that are put "
                    f"into the model's image by {view}, and backbone.frame = {spec.frame!r}: set backbone.frame={view}"
                )
            if isinstance(self.prompt, PromptConfig):
                self.prompt.check_spec(spec)
        needs_category = isinstance(self.prompt, PromptConfig) and self.prompt.needs_category
        if needs_category and isinstance(self.data, DatasetConfig) and not self.data.has_categories:
            raise ConfigError(
                f"prompt.kind = {self.prompt.kind!r} needs categories, and data.kind = {self.data.kind!r} has none"
            )
        return self

    def to_yaml(self) -> str:
        """The whole tree, as a file that reads back to the same config."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


@dataclass(frozen=True)
class Components:
    """The built parts of an experiment."""

    backbone: Backbone
    prompt: PromptProvider
    matcher: Matcher
    loss: MatchingLoss
    pair_transform: PairTransform | None = None


def build(
    config: ExperimentConfig,
    *,
    backbone: Backbone | None = None,
    prompt_file: str | Path | None = None,
    prompt_settings: Mapping[str, Any] | None = None,
    device: str = "cpu",
    cache: Cache | None = None,
) -> Components:
    """Load the backbone and build the rest around it.

    Args:
        config: checked.
        backbone: one that is loaded already, instead of the config's.
        prompt_file: a learned prompt, instead of the config's.
        prompt_settings: what to change in that file's config; see `load_prompt`.
        device: where the backbone and learned parts live, for example "cpu" or "cuda".
        cache: where latents of photos and features of image encoders are kept, for example `config.cache.open()`.
    """
    from sd4match.backbones.cached import cached
    from sd4match.prompting.serialization import load_prompt

    backbone = backbone or registry.backbones.build(config.backbone, device=device)
    assert backbone is not None
    if cache is not None:
        backbone = cached(backbone, cache)
    if prompt_file is None:
        prompt = build_prompt(config, backbone)
    else:
        prompt = load_prompt(prompt_file, backbone=backbone, settings=prompt_settings)
    transform: PairTransform | None = None
    if config.pair_transform is not None:
        transform = registry.pair_transforms.build(config.pair_transform)
    matcher, loss = registry.matchers.build(config.matcher), registry.losses.build(config.loss)
    return Components(backbone, prompt, matcher, loss, transform)


def build_prompt(config: ExperimentConfig, backbone: Backbone) -> PromptProvider:
    """The experiment's prompt around a backbone, on its device; a prompt for each category learns those of the data."""
    from torch import nn

    settings = config.prompt
    if isinstance(settings, PromptConfig) and settings.wants_categories:
        settings = settings.for_categories(build_dataset(config, "train").categories)
    prompt: PromptProvider = registry.prompts.build(settings, backbone=backbone)
    if isinstance(prompt, nn.Module) and isinstance(backbone, nn.Module):
        prompt.to(next(backbone.parameters()).device)
    return prompt


def build_dataset(config: ExperimentConfig, split: Split) -> PairDataset:
    """One split of the experiment's data."""
    dataset: PairDataset = registry.datasets.build(config.data.model_copy(update={"split": split}))
    return dataset


_PRESETS = Path(str(files("sd4match.config").joinpath("presets")))


def preset_names() -> tuple[str, ...]:
    """The experiments that come with the package: "cpm" is on mini, "sd2-1-cpm" on Stable Diffusion 2.1.

    >>> "cpm" in preset_names(), "mini-cpm" in preset_names(), "sd2-1-cpm" in preset_names()
    (True, True, True)
    """
    experiments = {file.stem for file in (_PRESETS / "experiments").glob("*.yaml")}
    baselines = {file.stem for file in (_PRESETS / "baselines").glob("*.yaml")}
    models = [file.stem for file in (_PRESETS / "models").glob("*.yaml")]
    return tuple(sorted(experiments | baselines | {f"{model}-{name}" for model in models for name in experiments}))


def load_preset(name: str, overrides: Iterable[str] = ()) -> ExperimentConfig:
    """An experiment that comes with the package, with `a.b=c` overrides.

    MODEL-EXPERIMENT lays the experiment's few lines over what all experiments on that model share; without a model it
    is mini. Baselines of the field (dift, sd-dino, dinov2, ...) stand on their own.

    Raises:
        ConfigError: there is no such preset, or an override does not fit.

    >>> load_preset("single", ["training.steps=5"]).training.steps
    5
    """
    if name not in preset_names():
        raise ConfigError(f"unknown preset {name!r}; {choose_from(name, preset_names())}")
    whole = _PRESETS / "baselines" / f"{name}.yaml"
    if whole.is_file():
        tree = yaml.safe_load(whole.read_text(encoding="utf-8"))
        return _make_config(tree, origin=f"preset {name}", overrides=overrides)
    model = next(
        (file.stem for file in (_PRESETS / "models").glob("*.yaml") if name.startswith(f"{file.stem}-")), "mini"
    )
    shared, experiment = (
        yaml.safe_load(file.read_text(encoding="utf-8"))
        for file in (
            _PRESETS / "models" / f"{model}.yaml",
            _PRESETS / "experiments" / f"{name.removeprefix(f'{model}-')}.yaml",
        )
    )
    prompt = experiment["prompt"]
    prompt = {**shared.pop("prompt_settings", {}).get(prompt["kind"], {}), **prompt}
    return _make_config({**shared, **experiment, "prompt": prompt}, origin=f"preset {name}", overrides=overrides)


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> ExperimentConfig:
    """An experiment from a YAML file, with `a.b=c` overrides.

    Raises:
        ConfigError: no such file, not YAML, an unknown field, a wrong type, or a combination that cannot work.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the config file {path}: {getattr(error, 'strerror', None) or error}") from None
    return parse_config(text, origin=str(path), overrides=overrides)


def parse_config(text: str, *, origin: str, overrides: Iterable[str] = ()) -> ExperimentConfig:
    """An experiment from YAML text; `origin` names it in errors."""
    try:
        tree = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{origin} must hold fields ({', '.join(ExperimentConfig.model_fields)}), not {type(tree).__name__}"
        )
    return _make_config(tree, origin=origin, overrides=overrides)


def _make_config(tree: dict[str, Any], *, origin: str, overrides: Iterable[str]) -> ExperimentConfig:
    for override in overrides:
        _override(tree, override)
    try:
        return ExperimentConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {registry.describe(error, ExperimentConfig)}") from None


def _override(tree: dict[str, Any], override: str) -> None:
    path, equals, value = override.partition("=")
    if not equals or not path.strip():
        raise ConfigError(f"an override is FIELD=VALUE, for example training.steps=100, not {override!r}")
    *parents, last = path.strip().split(".")
    node = tree
    for parent in parents:
        below = node.setdefault(parent, {})
        if isinstance(below, str):
            below = node[parent] = {"kind": below}
        if not isinstance(below, dict):
            raise ConfigError(f"{path!r} cannot be set: {parent!r} is not a group of fields")
        node = below
    try:
        node[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"{override!r}: the value is not YAML") from None
