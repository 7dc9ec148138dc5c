"""Experiment config: read from YAML, overridden, checked, and built into components.

Combinations that cannot work are refused here, before any weights load. Importing this module loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from sd4match import registry
from sd4match.arguments import check_arguments, check_fields
from sd4match.backbones.config import BackboneConfig, StableDiffusionConfig
from sd4match.checks import check_instance
from sd4match.config.composition import COMPOSED_FIELDS, Fields, compose
from sd4match.config.sections import CacheConfig, EvaluationConfig, TrainingConfig
from sd4match.data.config import DatasetConfig, Split
from sd4match.devices import resolve_device, resolve_dtype
from sd4match.documents import LARGEST_YAML, parse_yaml, to_yaml
from sd4match.errors import ConfigError, InputError, shown
from sd4match.fields import Seed
from sd4match.interfaces import LossConfig, Matcher, PairTransform
from sd4match.matching.losses import GaussianCrossEntropyConfig
from sd4match.matching.matchers import KernelSoftArgmax
from sd4match.paths import as_path, read_text
from sd4match.prompting.config import EmptyPromptConfig, PromptConfig

if TYPE_CHECKING:
    import torch

    from sd4match.interfaces import Backbone, MatchingLoss, PairDataset, Prompt
    from sd4match.io.cache import Cache
    from sd4match.structures.tensors import LossFunction, MatchFunction, PairFunction

# The type of each field is the base class of its kind, so that `build` and the other methods are typed.
_Backbone = Annotated[SerializeAsAny[BackboneConfig], BeforeValidator(registry.backbones.parse)]
_Prompt = Annotated[SerializeAsAny[PromptConfig], BeforeValidator(registry.prompts.parse)]
_Matcher = Annotated[SerializeAsAny[Matcher], BeforeValidator(registry.matchers.parse)]
_PairTransform = Annotated[SerializeAsAny[PairTransform], BeforeValidator(registry.pair_transforms.parse)]
_Loss = Annotated[SerializeAsAny[LossConfig], BeforeValidator(registry.losses.parse)]
_Dataset = Annotated[SerializeAsAny[DatasetConfig], BeforeValidator(registry.datasets.parse)]


_NEEDS = "# needs "
"""Start of the first line of a config with components of other packages."""


class ExperimentConfig(registry.Config):
    """Config of an experiment: everything that its numbers depend on.

    The defaults are the packaged mini model with the paper's parameters, and no data set. A config from a file, a
    preset or text has the settings of its model instead, and the data set of `mini` if that is the model; see
    `sd4match.config.composition`.

    Raises:
        ConfigError: a field is unknown or of a wrong type, or fields cannot work together.

    >>> config = ExperimentConfig(prompt="text", matcher={"kind": "soft_argmax", "temperature": 0.02})
    >>> config.matcher.temperature, config.loss.kind
    (0.02, 'gaussian_cross_entropy')
    """

    seed: Seed | None = Field(
        default=None,
        description="default of training.seed and of every seed of the prompt and of the components in it, wherever "
        "these are not given",
    )

    backbone: _Backbone = StableDiffusionConfig()
    prompt: _Prompt = EmptyPromptConfig()
    matcher: _Matcher = KernelSoftArgmax()
    pair_transform: _PairTransform | None = Field(
        default=None, description="transform of the two feature maps of a pair, before matching"
    )
    loss: _Loss = GaussianCrossEntropyConfig()
    data: _Dataset | None = Field(default=None, description="data set to train and evaluate on; matching needs none")
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    cache: CacheConfig = CacheConfig()

    @model_validator(mode="before")
    @classmethod
    def _distribute_seed(cls, fields: Any) -> Any:
        seed = fields.get("seed") if isinstance(fields, dict) else None
        if not isinstance(seed, int) or isinstance(seed, bool):
            return fields
        training, prompt = fields.get("training", {}), fields.get("prompt")
        if isinstance(training, dict):
            training = {"seed": seed, **training}
        with suppress(ConfigError):  # a later check refuses the field by its name
            prompt = None if prompt is None else registry.prompts.parse(prompt)
        seeded = {"training": _with_seed(training, seed), "prompt": _with_seed(prompt, seed)}
        return {**fields, **{name: value for name, value in seeded.items() if value is not None}}

    @model_validator(mode="after")
    def _check_combination(self) -> ExperimentConfig:
        self.backbone.check()
        spec = self.backbone.spec()
        if spec is not None:
            protocol = self.evaluation.protocol
            if spec.frame != protocol.frame:
                raise ConfigError(
                    f"evaluation.protocol = {protocol.name!r} needs photos in the layout "
                    f"{protocol.frame!r}, and backbone.frame = {spec.frame!r}: set backbone.frame={protocol.frame}"
                )
            self.prompt.check_spec(spec)
            if self.pair_transform is not None:
                self.pair_transform.check_spec(spec)
        if self.prompt.needs_category and self.data is not None and not self.data.has_categories:
            raise ConfigError(
                f"prompt.kind = {self.prompt.kind!r} needs categories, and data.kind = {self.data.kind!r} has none"
            )
        return self

    def to_yaml(self) -> str:
        """Return the whole config as YAML, which `parse_config` reads back to an equal config.

        A comment in the first line names the other packages that its components come from.
        """
        packages = registry.packages_of(self)
        head = f"{_NEEDS}{', '.join(packages)}\n" if packages else ""
        return head + to_yaml(self.model_dump(mode="json"))

    @check_arguments
    def with_dtype(self, dtype: str | torch.dtype) -> ExperimentConfig:
        """Return the same experiment with the backbone in another precision.

        Args:
            dtype: "float32", "float16" or "bfloat16", or one of torch.

        Raises:
            ConfigError: it is none of these, or the backbone has no data type of its own, as a fusion.

        >>> ExperimentConfig().with_dtype("bfloat16").backbone.dtype
        'bfloat16'
        """
        name = resolve_dtype(dtype)
        if "dtype" not in type(self.backbone).model_fields:
            raise ConfigError(
                f"dtype is for one model, and backbone.kind = {self.backbone.kind!r} has none of its own: "
                "change the backbones in it"
            )
        return self.model_copy(update={"backbone": self.backbone.model_copy(update={"dtype": name})})

    @check_arguments
    def with_learned(self, prompt_file: str | Path | None) -> ExperimentConfig:
        """Return the same experiment with the matcher, pair transform and loss of a prompt file.

        Args:
            prompt_file: file that a training wrote; None: return the experiment unchanged.

        Raises:
            PromptFileError: the file cannot be read.
        """
        from sd4match.prompting.serialization import read_prompt

        learned = {} if prompt_file is None else dict(read_prompt(prompt_file)[0].components)
        return self.model_copy(update=learned) if learned else self

    def require_data(self) -> DatasetConfig:
        """Return the config of the data set.

        Raises:
            ConfigError: the experiment has none.

        >>> ExperimentConfig(data="synthetic").require_data().kind
        'synthetic'
        """
        if self.data is None:
            raise ConfigError(
                "this experiment names no data set: give --dataset KIND --root FOLDER, "
                "or data: {kind: KIND, root: FOLDER} in its file"
            )
        return self.data


def _with_seed(value: Any, seed: int) -> Any:
    """Return a config, or a list of configs, in which this is every `seed` that is not given."""
    if isinstance(value, (tuple, list)):
        return type(value)([_with_seed(each, seed) for each in value]) if type(value) in (tuple, list) else value
    if not isinstance(value, registry.Config):
        return value
    changes = {name: _with_seed(below, seed) for name, below in value}
    changes = {name: below for name, below in changes.items() if below != getattr(value, name)}
    if "seed" in type(value).model_fields and "seed" not in value.model_fields_set:
        changes["seed"] = seed
    return value.model_copy(update=changes)


@dataclass(frozen=True)
class Components:
    """Built components of an experiment.

    Args:
        backbone: computes feature maps of photos.
        prompt: computes prompt embeddings of photos.
        matcher: computes matches from correlations.
        loss: loss of a training.
        pair_transform: transform of the two maps of a pair; None: none.

    Raises:
        InputError: a component is of another type.

    >>> from sd4match.matching import GaussianCrossEntropy, NearestNeighbor
    >>> from sd4match.prompting import EmptyPrompt
    >>> from sd4match.testing import FakeBackbone, FakeTextEncoder
    >>> backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    >>> prompt = EmptyPrompt(backbone=backbone)
    >>> Components(backbone, prompt, NearestNeighbor(), GaussianCrossEntropy()).beside_prompt()
    {}
    """

    backbone: Backbone
    prompt: Prompt
    matcher: MatchFunction
    loss: MatchingLoss | LossFunction
    pair_transform: PairFunction | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def beside_prompt(self) -> dict[str, Any]:
        """Return the components other than the prompt that learn, by the names of their fields."""
        from sd4match.interfaces import learns

        components = {"loss": self.loss, "matcher": self.matcher, "pair_transform": self.pair_transform}
        return {name: component for name, component in components.items() if learns(component)}


@check_arguments
def build_components(
    config: ExperimentConfig,
    *,
    backbone: Backbone | None = None,
    prompt_file: str | Path | None = None,
    prompt_changes: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
    cache: Cache | None = None,
) -> Components:
    """Load the backbone and build the other components.

    Args:
        config: the experiment.
        backbone: loaded backbone, in place of the config's.
        prompt_file: file of a learned prompt, in place of the config's prompt; matcher, pair transform and loss that
            were learned with it replace those of the config.
        prompt_changes: changes to the config in that file; see `load_prompt`.
        device: device of the backbone and of all learned components: "auto", "cpu", "cuda", "cuda:N" or "mps".
        cache: cache of encoded photos and image features, for example `config.cache.open()`.

    Raises:
        ConfigError: the device does not exist, or the prompt needs the categories of a data set and the experiment has
            none.
        InputError: `prompt_changes` are given without `prompt_file`.

    >>> from sd4match.config import load_preset
    >>> build_components(load_preset("mini-empty")).prompt.scope
    'dataset'
    """
    if prompt_file is None and prompt_changes:
        raise InputError("prompt_changes change the config in the file of a prompt: give prompt_file, or no changes")
    if prompt_file is None:
        _check_categories_known(config)
    device = resolve_device(device)

    from sd4match.backbones.cached import cached
    from sd4match.interfaces import Learned
    from sd4match.prompting.serialization import load_components, load_prompt

    backbone = backbone or config.backbone.build(device=device)
    if cache is not None:
        backbone = cached(backbone, cache)
    if prompt_file is None:
        prompt, learned = build_prompt(config, backbone), {}
    else:
        prompt = load_prompt(prompt_file, backbone=backbone, changes=prompt_changes)
        learned = load_components(prompt_file)
    transform = config.pair_transform
    components = Components(
        backbone=backbone,
        prompt=prompt,
        matcher=learned.get("matcher") or config.matcher.build(),
        loss=learned.get("loss") or config.loss.build(),
        pair_transform=learned.get("pair_transform") or (None if transform is None else transform.build()),
    )
    for name, component in components.beside_prompt().items():
        Learned(name, component).to(backbone.device)
    return components


def build_prompt(config: ExperimentConfig, backbone: Backbone) -> Prompt:
    """Build the experiment's prompt on the backbone's device.

    A prompt that learns one prompt per category takes the categories of the training data.

    Raises:
        ConfigError: the prompt needs the categories of a data set, and the experiment has none.
    """
    _check_categories_known(config)
    prompt = config.prompt
    if prompt.wants_categories:
        prompt = prompt.for_categories(build_dataset(config, "train").categories)
    return prompt.build(backbone=backbone).to(backbone.device)


def _check_categories_known(config: ExperimentConfig) -> None:
    if config.prompt.wants_categories and config.data is None:
        raise ConfigError(
            f"prompt.kind = {config.prompt.kind!r} is learned for the categories of a data set: give the file of a "
            "prompt from `sd4match train`, or --dataset KIND --root FOLDER"
        )


@check_arguments
def build_dataset(config: ExperimentConfig, split: Split) -> PairDataset:
    """Build one split of the experiment's data set.

    Args:
        config: experiment with a data set.
        split: "train", "validation" or "test".

    Raises:
        ConfigError: the experiment has no data set.
        DatasetError: the data set is not complete, or does not have that split.

    >>> from sd4match.config import load_preset
    >>> len(build_dataset(load_preset("mini-empty", ["data.pairs=5"]), "test"))
    5
    """
    return config.require_data().model_copy(update={"split": split}).build()


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> ExperimentConfig:
    """Read an experiment from a YAML file.

    Args:
        path: YAML file with fields of an `ExperimentConfig`. `preset: NAME`, or `model: NAME` and `experiment: NAME`,
            take all other fields from packaged files; see `sd4match.config.composition`.
        overrides: changes `a.b=c`, for example `training.steps=100`.

    Raises:
        ConfigError: the file cannot be read, is not YAML, has an unknown field, a wrong type, or a combination that
            cannot work.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "experiment.yaml"
    ...     _ = file.write_text("preset: single")
    ...     load_config(file, ["training.steps=100"]).training.steps
    100
    """
    file = as_path(path, what="the config file", error=ConfigError)
    text = read_text(file, what="config file", error=ConfigError, largest=LARGEST_YAML)
    return parse_config(text, origin=str(path), overrides=overrides)


def parse_config(text: str, *, origin: str, overrides: Iterable[str] = ()) -> ExperimentConfig:
    """Read an experiment from YAML text.

    Args:
        text: YAML, as in a file of `load_config`.
        origin: name of the text in error messages, for example its path.
        overrides: changes `a.b=c`.

    Raises:
        ConfigError: as in `load_config`.

    >>> parse_config("{model: sd2-1, experiment: cpm}", origin="doctest").prompt.kind
    'cpm'
    """
    check_instance("origin", origin, str)
    if not isinstance(text, str):
        raise ConfigError(f"{origin} must be YAML text, not {shown(text)}")
    fields = parse_yaml(text, what=origin, error=ConfigError)
    if fields is None:
        fields = {}  # an empty file
    if not isinstance(fields, dict):
        known = ", ".join([*COMPOSED_FIELDS, *ExperimentConfig.model_fields])
        raise ConfigError(f"{origin} must hold fields ({known}), not {type(fields).__name__}")
    try:
        return make_config(fields, origin=origin, overrides=overrides)
    except ConfigError as error:
        needs = text.partition("\n")[0]
        if not needs.startswith(_NEEDS) or "unknown" not in str(error):
            raise
        raise ConfigError(f"{error}; the file says that it {shown(needs[2:200])}: is that installed?") from None


def make_config(fields: Fields, *, origin: str, overrides: Iterable[str]) -> ExperimentConfig:
    """Compose the fields of a file, override and check them; arguments and errors as for `parse_config`."""
    composed = compose(fields, overrides)
    try:
        return ExperimentConfig.model_validate(composed)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None
