"""Matching for the page, with a cache of models, prompts and features of photos."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock, RLock
from typing import Any, Generic, TypeVar

from sd4match.backbones.cached import cached
from sd4match.backbones.config import BackboneConfig
from sd4match.backbones.pretrained import PRETRAINED, whereabouts
from sd4match.config.experiment import ExperimentConfig
from sd4match.config.presets import load_preset
from sd4match.dense import DenseMatch
from sd4match.devices import resolve_device
from sd4match.errors import CheckpointError, ConfigError, InputError, choose_from, shown
from sd4match.interfaces import Backbone, Prompt
from sd4match.pipeline import SemanticMatcher
from sd4match.prompting.config import EmptyPromptConfig, NoPromptConfig, TextPromptConfig
from sd4match.prompting.serialization import load_components, load_prompt
from sd4match.registry import matchers
from sd4match.results import Features, MatchResult
from sd4match.structures.images import Photo
from sd4match.structures.tensors import Correlation

DEFAULT_MATCHER = "default"
"""Choice of the matcher of the experiment or of the prompt file."""
MATCHERS = (
    DEFAULT_MATCHER, "nearest_neighbor", "soft_argmax", "kernel_soft_argmax", "window_soft_argmax",
    "bilinear_nearest_neighbor", "pixel_nearest_neighbor",
)  # fmt: skip
EMPTY, TEXT = "empty", "text"
_MODELS_HELD = 2
"""Loaded models; a Stable Diffusion takes gigabytes."""
_PROMPTS_HELD = 32
_BYTES_OF_FEATURES = 1 << 29

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")
Point = tuple[float, float]


class Kept(Generic[Key, Value]):
    """Values by key, of which the least recently used are dropped beyond a limit.

    Args:
        limit: largest sum of the sizes.
        size: of a value.

    >>> kept = Kept(2)
    >>> [kept.get(key, lambda: key.upper()) for key in "abac"], list(kept)
    (['A', 'B', 'A', 'C'], ['a', 'c'])
    """

    def __init__(self, limit: int, *, size: Callable[[Value], int] = lambda value: 1) -> None:
        self.limit = limit
        self.size = size
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """Return the value of a key; a missing value is made with `make`."""
        value = self._values.get(key)
        if value is None:
            value = make()
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > 1 and sum(map(self.size, self._values.values())) > self.limit:
                self._values.popitem(last=False)
        return value

    def __iter__(self) -> Iterator[Key]:
        return iter(self._values)


@dataclass(frozen=True)
class MatchSettings:
    """Settings of the user for matching."""

    model: str
    """Name of one of the models."""
    prompt: str | Path = EMPTY
    """"empty", "text", or the file of a learned prompt."""
    name: str = ""
    """Name of that file on the page."""
    template: str = "a photo of a {category}"
    """Text of the prompt "text"."""
    category: str = ""
    """Category of both photos; ignored by prompts that need none."""
    matcher: str = DEFAULT_MATCHER
    """One of `MATCHERS`."""
    timestep: int | None = None
    """Timestep of the extraction; None: that of the experiment."""
    mutual: bool = False
    """Flag that rejects points whose match, matched back, is not near them."""


@dataclass(frozen=True, eq=False)
class Answer:
    """Matches of points, and the correlation of the last point with the target."""

    result: MatchResult
    correlation: Correlation
    """Correlation of the last point only."""


@dataclass(frozen=True, eq=False)
class Model:
    """Loaded backbone with the settings of its experiment."""

    name: str
    config: ExperimentConfig
    backbone: Backbone
    lock: RLock = field(default_factory=RLock, repr=False)
    """Lock of the backbone, whose hooks do not allow two threads at once."""

    @property
    def takes_prompt(self) -> bool:
        """True if prompts change its features."""
        return self.backbone.spec.prompt_width is not None

    @property
    def is_mini(self) -> bool:
        """True for the packaged model, which was trained on drawings only."""
        return self.config.backbone.model_name == "mini"


def models_here(first: ExperimentConfig) -> dict[str, ExperimentConfig]:
    """Return the experiments of all models that need no download, by name; the given experiment is the first.

    A model whose folder is damaged or does not fit its preset is left out with a warning.

    >>> list(models_here(load_preset("hog")))[:2]
    ['hog', 'mini']
    """
    found = {first.backbone.model_name: first}
    for name, model in PRETRAINED.items():
        if name in found or whereabouts(name) is None:
            continue
        preset = "empty" if model.kind == "stable_diffusion" else "dino" if name.startswith("dino-") else "dinov2"
        try:
            found[name] = load_preset(preset, [f"backbone.weights={name}"])
        except (CheckpointError, ConfigError) as error:
            warnings.warn(f"the model {name} is not offered: {error}", stacklevel=2)
    found.setdefault("hog", load_preset("hog"))
    return found


class Matching:
    """Matching for the pages of all users, with shared models, prompts and features.

    Args:
        experiments: experiments of the models to choose from, by name.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".

    Raises:
        ConfigError: there is no such device.
    """

    def __init__(self, experiments: Mapping[str, ExperimentConfig], *, device: str = "auto") -> None:
        self.experiments = dict(experiments)
        self.device = resolve_device(device)
        self.training_turn = Lock()
        """Lock of the running training; there is only one at a time."""
        self._lock = RLock()
        self._models: Kept[str, Model] = Kept(_MODELS_HELD)
        self._prompts: Kept[Hashable, tuple[Prompt, dict[str, Any]]] = Kept(_PROMPTS_HELD)
        self._features: Kept[Hashable, Features] = Kept(
            _BYTES_OF_FEATURES, size=lambda features: features.map.values.nbytes
        )

    def model(self, name: str) -> Model:
        """Return a model, after loading it if necessary.

        Raises:
            InputError: there is no model of that name.
            CheckpointError: the model cannot be loaded.
        """
        if name not in self.experiments:
            raise InputError(f"no model {shown(name)}: {choose_from(str(name)[:80], self.experiments)}")

        def load() -> Model:
            config = self.experiments[name]
            backbone: BackboneConfig = config.backbone
            return Model(name, config, cached(backbone.build(device=self.device)))

        with self._lock:
            return self._models.get(name, load)

    def match(self, photos: tuple[Photo, Photo], points: Iterable[Point], settings: MatchSettings) -> Answer:
        """Match points of the first photo.

        Args:
            photos: source and target.
            points: at least one point in original pixels of the source.
            settings: settings of the user.

        Raises:
            InputError: a point is outside of its photo, there is no such model or matcher, or the prompt needs a
                category and there is none.
            SD4MatchError: the model or the prompt cannot be loaded, or do not fit each other.
        """
        wanted = list(points)
        model = self.model(settings.model)
        with model.lock:
            matcher = self._matcher(model, settings)
            sides, category = self._sides(matcher, photos, settings), settings.category or None
            result = matcher.match(*sides, wanted, category=category, mutual=settings.mutual)
            return Answer(result, matcher.correlate(*sides, wanted[-1:], category=category))

    def match_dense(self, photos: tuple[Photo, Photo], settings: MatchSettings) -> DenseMatch:
        """Match every cell of the first photo, and back; arguments and errors are those of `match`."""
        model = self.model(settings.model)
        with model.lock:
            matcher = self._matcher(model, settings)
            return matcher.match_dense(*self._sides(matcher, photos, settings), category=settings.category or None)

    def _matcher(self, model: Model, settings: MatchSettings) -> SemanticMatcher:
        config = model.config
        prompt, learned = self._prompts.get(_prompt_key(model, settings), lambda: _build_prompt(model, settings))
        if prompt.scope == "category" and not settings.category:
            raise InputError("this prompt needs to know what the photos show: fill in Category, or choose another one")
        if settings.matcher == DEFAULT_MATCHER:
            matcher = learned.get("matcher") or config.matcher.build()
        else:
            matcher = matchers.build(settings.matcher)
        sampling = config.evaluation.sampling.sampling(config.evaluation.seed)
        if settings.timestep is not None:
            sampling = replace(sampling, timestep=settings.timestep)
        transform = learned.get("pair_transform") or (config.pair_transform.build() if config.pair_transform else None)
        return SemanticMatcher(
            backbone=model.backbone, prompt=prompt, matcher=matcher, sampling=sampling, pair_transform=transform,
            protocol=config.evaluation.protocol,
        )  # fmt: skip

    def _sides(
        self, matcher: SemanticMatcher, photos: tuple[Photo, Photo], settings: MatchSettings
    ) -> tuple[Photo | Features, Photo | Features]:
        """Return the features of both photos, or the photos if the prompt depends on both of them."""
        if matcher.prompt.scope == "pair":
            return photos
        category = settings.category or None
        about = (*_prompt_key(self.model(settings.model), settings), settings.timestep, category)
        source, target = (
            self._features.get((*about, photo.key), lambda: matcher.extract(photo, category=category))  # noqa: B023
            for photo in photos
        )
        return source, target


def _prompt_key(model: Model, settings: MatchSettings) -> tuple[Hashable, ...]:
    """Return the cache key of a prompt, which changes if its file is written again."""
    if not model.takes_prompt:
        return (model.name,)
    if isinstance(settings.prompt, Path):
        stat = settings.prompt.stat() if settings.prompt.exists() else None
        return (model.name, settings.prompt, stat and (stat.st_mtime_ns, stat.st_size))
    return (model.name, settings.prompt, settings.template if settings.prompt == TEXT else None)


def _build_prompt(model: Model, settings: MatchSettings) -> tuple[Prompt, dict[str, Any]]:
    """Return the prompt, and the components that were learned together with it."""
    backbone = model.backbone
    if not model.takes_prompt:
        return NoPromptConfig().build(backbone=backbone), {}
    if isinstance(settings.prompt, Path):
        return load_prompt(settings.prompt, backbone=backbone), load_components(settings.prompt)
    config = EmptyPromptConfig() if settings.prompt == EMPTY else TextPromptConfig(template=settings.template)
    return config.build(backbone=backbone).to(backbone.device), {}
