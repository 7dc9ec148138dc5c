"""Pipeline that matches two photos: composition of a backbone, a prompt and a matcher."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
import torch

from sd4match.arguments import check_arguments, check_value
from sd4match.backbones.attention import token_attention
from sd4match.backbones.cached import cached
from sd4match.checks import (
    LARGEST_POSITIVE,
    SMALLEST_POSITIVE,
    check_count,
    check_flag,
    check_number,
    check_text,
)
from sd4match.config.experiment import Components, ExperimentConfig, build_components
from sd4match.config.presets import load_preset
from sd4match.config.protocols import EvaluationProtocol
from sd4match.config.sections import SamplingConfig
from sd4match.data.collate import make_images
from sd4match.dense import DenseMatch
from sd4match.devices import resolve_device
from sd4match.errors import ConfigError, InputError, shown
from sd4match.geometry import grid_points, mask_to_cells
from sd4match.hashing import digest
from sd4match.interfaces import Backbone, Learned, Matcher, PairTransform, Prompt, learns
from sd4match.io.cache import Cache
from sd4match.matching import functional
from sd4match.matching.checked import check_correlation, checked_matches, checked_pair
from sd4match.matching.correlation import correlate_maps
from sd4match.paths import as_path
from sd4match.prompting.config import PromptConfig
from sd4match.prompting.labels import token_labels
from sd4match.prompting.pairing import extract_maps, pair_maps, preprocessors, prompt_embeddings
from sd4match.prompting.serialization import read_prompt
from sd4match.results import Candidates, Features, MatchResult
from sd4match.sharing import push_matcher, read_matcher, write_matcher
from sd4match.structures.images import ImageBatch, Photo
from sd4match.structures.inputs import PhotoLike, Points, as_photo, check_points
from sd4match.structures.tensors import (
    Correlation,
    EvaluationNoise,
    FeatureMap,
    MatchFunction,
    PairFunction,
    Sampling,
)

Pair = tuple[PhotoLike | Features, PhotoLike | Features] | tuple[PhotoLike | Features, PhotoLike | Features, Points]
"""(source, target), or (source, target, points)."""
Progress = Callable[[int, int], None]
"""Function that is called with the number of matched pairs and the number of all pairs."""

_QUERIES_AT_ONCE = 4096
_LARGEST_GRID = 1000
_MAPS_IN_MEMORY = 2 << 30
"""Bytes of feature maps that `match_pairs` keeps in memory."""
RETURN_CELLS = 1.5
"""Largest distance in cells, along x and along y, between a query point and the match of its match, if it is mutual."""


_Photos = tuple[Photo, Photo]
_Maps = tuple[FeatureMap, FeatureMap]


def build_for_matching(
    config: ExperimentConfig,
    *,
    prompt: str | Path | None = None,
    prompt_changes: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
    cache: Cache | None = None,
) -> Components:
    """Build components as `build_components` does, but refuse a learned component that is not in the given file.

    Raises:
        ConfigError: the prompt, the matcher or the pair transform must be learned, and no file holds it.
    """
    components = build_components(config, prompt_file=prompt, prompt_changes=prompt_changes, device=device, cache=cache)
    stored = {} if prompt is None else read_prompt(prompt)[0].components
    for name in ("prompt", "matcher", "pair_transform"):
        is_given = name in stored if name != "prompt" else prompt is not None
        if learns(getattr(components, name)) and not is_given:
            whose = f"{name}.kind = {getattr(config, name).kind!r} is learned"
            lacking = "" if prompt is None else f", and {prompt} does not hold it"
            raise ConfigError(f"{whose}{lacking}: give the file of a prompt from `sd4match train`")
    return components


class SemanticMatcher:
    """Semantic correspondences between two photos, found with a backbone, a prompt and a matcher.

    Components may also be assigned later, for example `matcher.prompt = load_prompt(...)`.

    Args:
        backbone: computes feature maps of photos.
        prompt: computes prompt embeddings of photos.
        matcher: computes matches from correlations; a `Matcher` or any function.
        sampling: timestep, ensemble and noise; None: t = 50.
        pair_transform: transform of the two maps of a pair, before matching; None: no transform.
        protocol: alignment of cells and sampling of source points, as in the benchmark of that name; None: those of the
            backbone.
        config: experiment that the components were built from; needed to save the matcher.

    Raises:
        InputError: a component is of another type, also when it is assigned later; the message names it.

    >>> matcher = SemanticMatcher.from_preset("mini-empty")
    >>> photo = np.zeros((60, 90, 3), dtype=np.uint8); photo[20:40, 30:50] = 255
    >>> result = matcher.match(photo, photo, points=[(40.0, 30.0)])
    >>> result.target_points.shape, result.scores.shape
    ((1, 2), (1,))
    """

    backbone: Backbone
    prompt: Prompt
    matcher: MatchFunction
    sampling: Sampling
    pair_transform: PairFunction | None
    protocol: EvaluationProtocol | None
    config: ExperimentConfig | None
    """Experiment that the matcher was built from; None if it was composed of components."""

    @check_arguments
    def __init__(
        self,
        *,
        backbone: Backbone,
        prompt: Prompt,
        matcher: MatchFunction,
        sampling: Sampling | None = None,
        pair_transform: PairFunction | None = None,
        protocol: EvaluationProtocol | None = None,
        config: ExperimentConfig | None = None,
    ) -> None:
        self.backbone = backbone
        self.prompt = prompt
        self.matcher = matcher
        self.sampling = sampling or Sampling(timestep=50)
        self.pair_transform = pair_transform
        self.protocol = protocol
        self.config = config
        self._configured = backbone

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute; components switch to evaluation mode, for example without dropout."""
        check_value(type(self), name, value)
        Learned(name, value).train(False)
        super().__setattr__(name, value)

    @classmethod
    @check_arguments
    def from_preset(
        cls,
        name: str = "text",
        *,
        prompt: str | Path | None = None,
        overrides: Iterable[str] = (),
        device: str | torch.device = "auto",
        dtype: str | torch.dtype | None = None,
    ) -> SemanticMatcher:
        """Build the experiment of a preset.

        Args:
            name: one of `preset_names()`.
            prompt: file of a learned prompt; required for a preset that learns its prompt.
            overrides: changes `a.b=c`, for example `backbone.weights=FOLDER`.
            device: "cpu", "cuda", "cuda:N", "mps", a `torch.device`, or "auto" for a GPU if there is one.
            dtype: data type of the backbone, "float32", "float16" or "bfloat16", or one of torch; None: the preset's.

        Returns:
            The matcher, with its weights loaded.

        Raises:
            ConfigError: there is no such preset, device or precision; or the prompt must be learned first, and no file
                is given.
        """
        return cls.from_config(load_preset(name, overrides), prompt=prompt, device=device, dtype=dtype)

    @classmethod
    @check_arguments
    def from_config(
        cls,
        config: ExperimentConfig,
        *,
        prompt: str | Path | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype | None = None,
    ) -> SemanticMatcher:
        """Build the experiment of a config.

        Args:
            config: experiment, for example from `load_config`.
            prompt: file of a learned prompt; required for a config that learns its prompt.
            device: as in `from_preset`.
            dtype: as in `from_preset`; None: the config's.

        Returns:
            The matcher, with its weights loaded.

        Raises:
            ConfigError: there is no such device or precision; or the prompt must be learned first, and no file is
                given.
        """
        if dtype is not None:
            config = config.with_dtype(dtype)
        components = build_for_matching(config, prompt=prompt, device=device)
        return cls.from_components(components, config.with_learned(prompt))

    @classmethod
    @check_arguments
    def from_components(cls, components: Components, config: ExperimentConfig) -> SemanticMatcher:
        """Compose built components, with the sampling and the protocol of the config's evaluation.

        Args:
            components: built components, for example from `build_components`.
            config: experiment that they were built from.

        Raises:
            InputError: an argument is of another type.
        """
        sampling = config.evaluation.sampling.sampling(config.evaluation.seed)
        return cls(
            backbone=components.backbone, prompt=components.prompt, matcher=components.matcher, sampling=sampling,
            pair_transform=components.pair_transform, protocol=config.evaluation.protocol, config=config,
        )  # fmt: skip

    @classmethod
    @check_arguments
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        endpoint: str | None = None,
        overrides: Iterable[str] = (),
        device: str | torch.device = "auto",
        dtype: str | torch.dtype | None = None,
    ) -> SemanticMatcher:
        """Load a matcher that `save_pretrained` or `push_to_hub` wrote, or a prompt on the hub.

        Args:
            source: a folder, or "user/name" on the hub.
            revision: branch, tag or commit on the hub; None: the default branch.
            endpoint: address of the hub; None: the default one.
            overrides: changes `a.b=c`, for example `backbone.weights=FOLDER`.
            device: as in `from_preset`.
            dtype: as in `from_preset`.

        Raises:
            PromptFileError: the hub cannot be reached, or has no such repository; or a prompt file is damaged.
            ConfigError: the folder holds no matcher, or a damaged one; or as in `from_preset`.
        """
        config, prompt = read_matcher(source, revision=revision, endpoint=endpoint, overrides=overrides)
        return cls.from_config(config, prompt=prompt, device=device, dtype=dtype)

    @check_arguments
    def save_pretrained(
        self, folder: str | Path, *, results: Mapping[str, str | float] | None = None, name: str | None = None
    ) -> Path:
        """Write experiment, prompt file and card into a folder, for `from_pretrained`.

        Args:
            folder: folder to write to; it is created if it does not exist, and an earlier matcher in it is replaced.
            results: PCK by name, for the card, for example {"PCK@0.1 per image on SPair-71k": 71.2}.
            name: name of the matcher in the snippet of the card; None: that of the folder.

        Returns:
            The folder.

        Raises:
            InputError: the matcher was composed of components without a config, or has a component that a config cannot
                name; or the folder holds files of these names that sd4match did not write.
        """
        folder = as_path(folder, what="the folder of a matcher")
        return write_matcher(
            self._own_config(), self.prompt, folder, backbone=self.backbone, results=results,
            name=name or folder.absolute().name,
            components={"matcher": self.matcher, "pair_transform": self.pair_transform},
        )  # fmt: skip

    @check_arguments
    def push_to_hub(
        self,
        repo_id: str,
        *,
        results: Mapping[str, str | float] | None = None,
        private: bool = False,
        endpoint: str | None = None,
    ) -> str:
        """Upload the files of `save_pretrained` to a repository, which is created if it does not exist.

        Args:
            repo_id: "user/name".
            results: as in `save_pretrained`.
            private: create a new repository as private.
            endpoint: address of the hub; None: the default one.

        Returns:
            The address of the repository.

        Raises:
            PromptFileError: `repo_id` is not a name, or the hub refuses it.
            InputError: as in `save_pretrained`.
        """
        with TemporaryDirectory() as temporary:
            folder = self.save_pretrained(Path(temporary) / "matcher", results=results, name=repo_id)
            return push_matcher(folder, repo_id, private=private, endpoint=endpoint)

    def _own_config(self) -> ExperimentConfig:
        """Return the config with the present components.

        Raises:
            InputError: there is no config, or a component cannot be expressed in one.
        """
        if self.config is None:
            raise InputError("this matcher was composed of components: build it from a config or a preset to save it")
        if self.backbone is not self._configured:
            raise InputError(
                "the backbone was replaced after construction: build the matcher from a config that names it to save it"
            )
        prompt = self.prompt.config
        matcher, pair_transform = (
            Learned(name, getattr(self, name)).config or getattr(self, name) for name in ("matcher", "pair_transform")
        )
        for name, component, kind in (
            ("matcher", matcher, Matcher), ("pair_transform", pair_transform, PairTransform),
            ("prompt", prompt, PromptConfig), ("protocol", self.protocol, EvaluationProtocol),
        ):  # fmt: skip
            if component is not None and not isinstance(component, kind):
                raise InputError(f"the {name} is not a registered component, so this matcher cannot be saved")
        if not isinstance(self.sampling.noise, EvaluationNoise):
            raise InputError("a matcher whose sampling uses training noise cannot be saved")
        own = self.sampling
        sampling = SamplingConfig(
            timestep=own.timestep, ensemble_size=own.ensemble_size, ensemble=own.ensemble, posterior=own.posterior
        )
        protocol = self.protocol or self.config.evaluation.protocol
        changes = {"sampling": sampling, "protocol": protocol, "seed": self.sampling.noise.seed}
        evaluation = self.config.evaluation.model_copy(update=changes)
        return self.config.model_copy(
            update={
                "matcher": matcher, "pair_transform": pair_transform, "prompt": prompt,
                "evaluation": evaluation,
            }
        )  # fmt: skip

    @property
    def device(self) -> torch.device:
        """Device of the backbone."""
        return self.backbone.device

    @check_arguments
    def to(self, device: str | torch.device) -> Self:
        """Move backbone, prompt and matcher to a device, and return the matcher itself.

        Args:
            device: as in `from_preset`.

        Raises:
            ConfigError: there is no such device.
        """
        device = resolve_device(device)
        for name in ("backbone", "prompt", "matcher", "pair_transform"):
            Learned(name, getattr(self, name)).to(device)
        return self

    def __repr__(self) -> str:
        prompt, matcher = (
            getattr(component, "__name__", type(component).__name__) for component in (self.prompt, self.matcher)
        )
        spec = self.backbone.spec
        return (
            f"SemanticMatcher({spec.architecture}, layer {spec.layer}, {prompt}, {matcher}, "
            f"t {self.sampling.timestep}, ensemble of {self.sampling.ensemble_size}, on {self.device})"
        )

    @torch.no_grad()
    def match(
        self,
        source: PhotoLike | Features,
        target: PhotoLike | Features,
        points: Points | None = None,
        *,
        category: str | tuple[str, str] | None = None,
        mutual: bool = False,
        grid: int = 8,
    ) -> MatchResult:
        """Find points of one photo in another.

        Args:
            source: a path, a pillow image, an array (H, W, 3) or a tensor (3, H, W) of uint8 or of floats in [0, 1], a
                `Photo`, or the `Features` of one from `extract`. If a `Photo` has a mask, `points` must lie in it, and
                the regular grid is restricted to it.
            target: likewise, of any size. If a `Photo` has a mask, points are matched only to cells in it.
            points: (N, 2), (x, y) in pixels of the source, inside it; None: a regular grid.
            category: category of both photos, or a pair of those of source and target; text prompts need it.
            mutual: keep only mutual matches: the target point, matched back to the source, must lie within
                `RETURN_CELLS` cells of the query point.
            grid: points per side of the regular grid, from 1 to 1000.

        Returns:
            N matches; fewer with `mutual`, or if the matcher rejects some. `indices` holds, for each match, the row of
            its query point in `points`. A point between the border of the photo and the outermost cell centers is
            clamped to these centers.

        Raises:
            PhotoError: a photo cannot be read.
            InputError: a point is outside the source or its mask; the prompt needs a category and none is given; or
                `Features` are given that were extracted with another backbone, prompt or sampling, or with a prompt
                that depends on both photos.
            NonFiniteError: features are NaN or infinite; the message suggests a remedy.
            ComponentError: a custom component fails, or returns a value that its interface does not allow.
        """
        check_flag("mutual", mutual)
        side = check_count("grid", grid, 1, _LARGEST_GRID)
        photos, maps = self._sides(source, target, category)
        return self._match_points(photos, maps, _wanted_points(points, photos[0], side), mutual=mutual)

    def match_many(
        self,
        source: PhotoLike | Features,
        targets: Iterable[PhotoLike],
        points: Points | None = None,
        *,
        category: str | tuple[str, str] | None = None,
        mutual: bool = False,
        grid: int = 8,
        batch_size: int = 8,
        progress: bool | Progress = False,
    ) -> list[MatchResult]:
        """Find points of one photo in many others; see `match_pairs`.

        Args:
            source: as in `match`.
            targets: M photos.
            points: as in `match`.
            category: as in `match`, for all targets.
            mutual: as in `match`.
            grid: as in `match`.
            batch_size: as in `match_pairs`.
            progress: as in `match_pairs`.

        Returns:
            M results, in the order of the targets.

        Raises:
            InputError: as in `match`; or the targets are not a list of photos.
            PhotoError, NonFiniteError, ComponentError: as in `match`.
        """
        if isinstance(targets, (str, bytes, Path, Mapping)) or not isinstance(targets, Iterable):
            raise InputError(f"targets must be a list of photos, not {shown(targets)}")
        photo = source if isinstance(source, Features) else as_photo(source)
        pairs: list[Pair] = [(photo, target) if points is None else (photo, target, points) for target in targets]
        return self.match_pairs(
            pairs, category=category, mutual=mutual, grid=grid, batch_size=batch_size, progress=progress
        )

    @torch.no_grad()
    def match_pairs(
        self,
        pairs: Iterable[Pair],
        *,
        category: str | tuple[str, str] | Sequence[str | tuple[str | None, str | None] | None] | None = None,
        mutual: bool = False,
        grid: int = 8,
        batch_size: int = 8,
        progress: bool | Progress = False,
    ) -> list[MatchResult]:
        """Match many pairs, as `match` does, in batches and with a cache of feature maps.

        With a prompt that does not depend on pairs, each photo is encoded once as long as its map stays in the cache.
        The cache holds 2 GiB and drops the least recently used maps first, so pairs that share photos should follow
        each other.

        Args:
            pairs: M pairs (source, target), or (source, target, points), as in `match`.
            category: as in `match`, for all pairs; or a list of M categories.
            mutual: as in `match`.
            grid: as in `match`.
            batch_size: photos that are extracted together, at least 1; pairs, for prompts that depend on pairs.
            progress: True for a progress bar, or a function of the number of matched pairs and the number of all pairs.

        Returns:
            M results, in the order of the pairs.

        Raises:
            InputError: as in `match`; or an item is not a pair, or there is not one category for each.
            PhotoError, NonFiniteError, ComponentError: as in `match`.

        >>> matcher = SemanticMatcher.from_preset("mini-empty")
        >>> photo = np.zeros((60, 90, 3), dtype=np.uint8); photo[20:40, 30:50] = 255
        >>> [len(result) for result in matcher.match_pairs([(photo, photo), (photo, photo, [(40.0, 30.0)])])]
        [64, 1]
        """
        check_flag("mutual", mutual)
        side = check_count("grid", grid, 1, _LARGEST_GRID)
        check_count("batch_size", batch_size)
        if not isinstance(progress, bool) and not callable(progress):
            raise InputError(f"progress must be True, False or a function of two counts, not {shown(progress)}")
        rows = _parse_pairs(pairs, category)
        results: list[MatchResult] = []
        with _reporting(progress, len(rows)) as report:
            maps = self._maps_of_pairs(batch_size)
            for first in range(0, len(rows), batch_size):
                some = rows[first : first + batch_size]
                for row, (source, target) in zip(some, maps(some), strict=True):
                    photos = (row.source_photo, row.target_photo)
                    wanted = _wanted_points(row.points, photos[0], side)
                    prepared = self._prepared(photos, (source, target))
                    results.append(self._match_points(photos, prepared, wanted, mutual=mutual))
                    report(len(results), len(rows))
        return results

    def correlate(
        self,
        source: PhotoLike | Features,
        target: PhotoLike | Features,
        points: Points,
        *,
        category: str | tuple[str, str] | None = None,
        grad: bool = False,
    ) -> Correlation:
        """Correlate points of one photo with every cell of another, as input of matchers and losses.

        Args:
            source: as in `match`.
            target: as in `match`.
            points: (N, 2), (x, y) in pixels of the source, inside it.
            category: as in `match`.
            grad: record gradients, so that the correlation is differentiable with respect to the prompt's parameters.
                `Features` carry no gradients.

        Returns:
            Cosine similarities (1, N, h, w) in [-1, 1], -inf outside of the target's mask; `full()` correlates all
            cells of the source, `reversed(points)` points of the target.

        Raises:
            InputError, PhotoError, NonFiniteError, ComponentError: as in `match`.

        >>> matcher = SemanticMatcher.from_preset("mini-empty")
        >>> photo = np.zeros((60, 90, 3), dtype=np.uint8); photo[20:40, 30:50] = 255
        >>> matcher.correlate(photo, photo, [(40.0, 30.0)]).values.shape
        torch.Size([1, 1, 24, 24])
        """
        check_flag("grad", grad)
        with torch.set_grad_enabled(grad):
            photos, maps = self._sides(source, target, category)
            wanted = check_points(points, photos[0])
            return self._correlate(maps[0], maps[1], wanted[None].to(maps[0].values))

    @torch.no_grad()
    def match_candidates(
        self,
        source: PhotoLike | Features,
        target: PhotoLike | Features,
        points: Points,
        *,
        count: int = 5,
        category: str | tuple[str, str] | None = None,
        temperature: float = 0.04,
    ) -> Candidates:
        """Find the K best candidates for each point, by greedy non-maximum suppression of the correlation.

        Candidates are cells of the feature map that are more than 1.5 cells apart in x or in y.

        Args:
            source: as in `match`.
            target: as in `match`.
            points: (N, 2), (x, y) in pixels of the source, inside it.
            count: K, candidates per point, at least 1.
            category: as in `match`.
            temperature: divisor of the correlation in the scores, > 0.

        Returns:
            N x K candidates, best first.

        Raises:
            InputError: as in `match`; or fewer than `count` cells are left after suppression and masking.
            PhotoError, NonFiniteError, ComponentError: as in `match`.
        """
        check_count("count", count)
        temperature = check_number("temperature (positive)", temperature, SMALLEST_POSITIVE, LARGEST_POSITIVE)
        photos, maps = self._sides(source, target, category)
        wanted = check_points(points, photos[0])
        correlation = self._correlate(maps[0], maps[1], wanted[None].to(maps[0].values))
        check_correlation(correlation)
        height, width = maps[1].size
        cells, values = functional.best_cells(correlation.values, count=min(count, height * width))
        if count > height * width or not values.isfinite().all():
            raise InputError(f"fewer than {count} candidates are in a map of {height} x {width} cells: lower count")
        scores = torch.stack(
            [
                functional.probability_mass(correlation.values, rank, temperature=temperature)
                for rank in cells.unbind(dim=2)
            ],
            dim=2,
        )
        found = correlation.target.grid.to_pixels(cells.flatten(1, 2))[0].cpu()
        candidates = _inside(found, photos[1]).unflatten(0, (len(wanted), count))
        return Candidates(wanted.double().numpy(), candidates.double().numpy(), scores[0].double().cpu().numpy())

    @torch.no_grad()
    def match_dense(
        self,
        source: PhotoLike | Features,
        target: PhotoLike | Features,
        *,
        category: str | tuple[str, str] | None = None,
        cycle: bool = True,
    ) -> DenseMatch:
        """Match every cell of the source's feature map.

        Args:
            source: as in `match`.
            target: as in `match`.
            category: as in `match`.
            cycle: also match every cell of the target in the source; the cycle mask, `transfer` and `reversed` need
                these matches. No features are extracted again.

        Returns:
            (h, w) matches; 48 x 48 for up-block 1 of Stable Diffusion 2.1 at 768. Cells that the matcher rejects, and
            those outside of the source's mask, are not `valid`.

        Raises:
            InputError, PhotoError, NonFiniteError, ComponentError: as in `match`.
        """
        check_flag("cycle", cycle)
        photos, maps = self._sides(source, target, category)
        backward = self._match_cells(photos[::-1], maps[::-1]) if cycle else None
        return replace(self._match_cells(photos, maps), backward=backward)

    def _match_cells(self, photos: Sequence[Photo], maps: Sequence[FeatureMap]) -> DenseMatch:
        """Match every cell of the first map in the second one."""
        source, target = maps
        grid = source.grid
        queries = grid.cell_centers(torch.zeros(1, device=source.values.device))
        found, scores, valid = self._match_all(source, target, queries)
        if source.mask is not None:
            valid = valid & source.mask.flatten(1)
        points = _inside(found[0].cpu(), photos[1]).double()
        points, scores, valid = (
            values.unflatten(0, grid.size).numpy() for values in (points, scores[0].cpu().double(), valid[0].cpu())
        )
        return DenseMatch(photos[0], photos[1], grid, points, scores, valid=valid)

    @torch.no_grad()
    def extract(self, photo: PhotoLike, *, category: str | None = None) -> Features:
        """Extract the features of one photo, for any number of matches.

        Args:
            photo: a photo, as in `match`.
            category: category of the photo; text prompts need it.

        Returns:
            Features that `match` and the other methods take in place of the photo.

        Raises:
            PhotoError: the photo cannot be read.
            InputError: the prompt depends on both photos of a pair, or needs a category.

        >>> matcher = SemanticMatcher.from_preset("mini-empty")
        >>> features = matcher.extract(np.zeros((60, 90, 3), dtype=np.uint8))
        >>> features, features.at([(45.0, 30.0)]).shape
        (Features(photo 90 x 60: 96 x 24 x 24, scope='dataset'), torch.Size([1, 96]))
        """
        self._check_single()
        _check_category(category)
        opened = as_photo(photo)
        images = make_images([opened], [category], preprocessors(self.backbone, self.prompt))
        return self._features(images, category)

    def feature_map(self, photo: PhotoLike, *, category: str | None = None) -> FeatureMap:
        """Extract the feature map of one photo, with the grid of its cells; see `extract`.

        Args:
            photo: a photo, as in `match`.
            category: category of the photo; text prompts need it.

        Returns:
            (1, C, h, w).

        Raises:
            PhotoError: the photo cannot be read.
            InputError: the prompt depends on both photos of a pair, or needs a category.
        """
        return self.extract(photo, category=category).map

    @torch.no_grad()
    def attention(
        self,
        photo: PhotoLike,
        *,
        category: str | None = None,
        pair: tuple[PhotoLike, PhotoLike] | None = None,
    ) -> tuple[FeatureMap, dict[int, str]]:
        """Return the attention of each cell of a photo to each token of the prompt; see `backbones.token_attention`.

        Args:
            photo: a photo, as in `match`.
            category: category of the photo; text prompts need it.
            pair: source and target that the prompt is computed from; only for prompts that depend on both photos of a
                pair.

        Returns:
            Map (1, L, h, w), whose channels are the tokens, and the names of the tokens between the begin and end
            tokens, by their index; `viz.draw_attention` takes both.

        Raises:
            PhotoError: a photo cannot be read.
            InputError: the backbone has no cross-attention, or the prompt depends on pairs and none is given, or the
                other way round.

        >>> matcher = SemanticMatcher.from_preset("text")
        >>> attention, labels = matcher.attention(np.zeros((60, 90, 3), dtype=np.uint8), category="cat")
        >>> attention.values.shape, list(labels.values())
        (torch.Size([1, 77, 24, 24]), ['a', 'photo', 'of', 'a', 'ca', 't'])
        """
        _check_category(category)
        opened = as_photo(photo)
        if pair is None:
            self._check_single()
        elif self.prompt.scope != "pair":
            raise InputError("pair is for a prompt that depends on both photos of a pair: leave it out")
        views = preprocessors(self.backbone, self.prompt)
        images = [make_images([as_photo(photo)], [category], views) for photo in pair or (opened,)]
        embedding = prompt_embeddings(self.prompt, *images)
        attention = token_attention(self.backbone, opened, embedding, self.sampling)
        return attention, token_labels(self.prompt, *images, backbone=self.backbone)

    def _features(self, images: ImageBatch, category: str | None) -> Features:
        """Return the features of a batch of one photo."""
        maps = extract_maps(self.backbone, images, prompt_embeddings(self.prompt, images), self.sampling)
        return Features(images.photos[0], maps, self.prompt.scope, category, self._origin())

    def _origin(self) -> str:
        """Return a digest of everything that features depend on besides the photo and its category."""
        prompt = self.prompt
        tensors = {name: value.detach().cpu() for name, value in prompt.state_dict().items()}
        about = repr(getattr(prompt, "config", None) or type(prompt))
        return digest(self.backbone.fingerprint, self.backbone.spec, self.sampling, about, *tensors, *tensors.values())

    def _check_single(self) -> None:
        if self.prompt.scope == "pair":
            raise InputError(
                "this prompt depends on both photos of a pair: features of a single photo cannot be extracted; "
                "give both photos to match()"
            )

    def _match_all(
        self, source: FeatureMap, target: FeatureMap, queries: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return points (1, N, 2), scores (1, N) and flags (1, N) of all queries, computed in chunks."""
        found = [
            checked_matches(self.matcher, self._correlate(source, target, some))
            for some in queries.split(_QUERIES_AT_ONCE, dim=1)
        ]
        points, scores, valid = zip(
            *[(matches.points, matches.scores, matches.valid) for matches in found], strict=True
        )
        return torch.cat(points, dim=1), torch.cat(scores, dim=1), torch.cat(valid, dim=1)

    def _correlate(self, source: FeatureMap, target: FeatureMap, queries: torch.Tensor) -> Correlation:
        if self.protocol is None:
            return correlate_maps(source, target, queries)
        return self.protocol.correlate(source, target, queries)

    def _sides(
        self, source: PhotoLike | Features, target: PhotoLike | Features, category: str | tuple[str, str] | None
    ) -> tuple[_Photos, _Maps]:
        """Return both photos and their maps, as `_prepared` returns them."""
        categories = _both(category)
        given = [side if isinstance(side, Features) else as_photo(side) for side in (source, target)]
        photos = tuple(side.photo if isinstance(side, Features) else side for side in given)
        views = preprocessors(self.backbone, self.prompt)
        if any(isinstance(side, Features) for side in given):
            self._check_single()
            maps = []
            for side, own in zip(given, categories, strict=True):
                if isinstance(side, Features):
                    maps.append(self._own(side).map)
                else:
                    maps.append(self._features(make_images([side], [own], views), own).map)
        else:
            left, right = (make_images([photo], [own], views) for photo, own in zip(photos, categories, strict=True))
            maps = list(pair_maps(self.backbone, self.prompt, left, right, self.sampling))
        return (photos[0], photos[1]), self._prepared((photos[0], photos[1]), (maps[0], maps[1]))

    def _own(self, features: Features) -> Features:
        """Return features on the device of the backbone.

        Raises:
            InputError: another matcher extracted them.
        """
        if features.origin != self._origin():
            raise InputError(
                f"{features!r} was extracted with another backbone, prompt or sampling: extract it with this matcher"
            )
        return features.to(self.device)

    def _prepared(self, photos: _Photos, maps: _Maps) -> _Maps:
        """Return maps after the pair transform, on the grid of the protocol, with the masks of the photos."""
        source, target = maps
        if self.pair_transform:
            masked = (_with_mask(features, photo) for features, photo in zip(maps, photos, strict=True))
            source, target = checked_pair(self.pair_transform, *masked)
        if self.protocol is not None:
            source, target = self.protocol.aligned(source), self.protocol.aligned(target)
        return _with_mask(source, photos[0]), _with_mask(target, photos[1])

    def _match_points(self, photos: _Photos, maps: _Maps, wanted: torch.Tensor, *, mutual: bool) -> MatchResult:
        queries = wanted[None].to(maps[0].values)
        found, scores, valid = self._match_all(maps[0], maps[1], queries)
        accepted = valid[0].cpu()
        if mutual:
            accepted &= self._comes_back(maps, queries, found)
        return MatchResult(
            source=photos[0],
            target=photos[1],
            source_points=wanted[accepted].double().numpy(),
            target_points=_inside(found[0].cpu(), photos[1])[accepted].double().numpy(),
            scores=scores[0].cpu()[accepted].double().numpy(),
            indices=accepted.nonzero()[:, 0].numpy(),
        )

    def _maps_of_pairs(self, batch_size: int) -> Callable[[Sequence[_Row]], Iterator[_Maps]]:
        """Return a function from some pairs to their maps, which encodes each photo once."""
        backbone = cached(self.backbone)
        views = preprocessors(backbone, self.prompt)

        def pair_by_pair(rows: Sequence[_Row]) -> Iterator[_Maps]:
            if any(isinstance(side, Features) for row in rows for side in (row.source, row.target)):
                self._check_single()
            sources, targets = [row.source_photo for row in rows], [row.target_photo for row in rows]
            left = make_images(sources, [row.categories[0] for row in rows], views)
            right = make_images(targets, [row.categories[1] for row in rows], views)
            source, target = pair_maps(backbone, self.prompt, left, right, self.sampling)
            for row in range(len(rows)):
                yield source[row : row + 1], target[row : row + 1]

        if self.prompt.scope == "pair":
            return pair_by_pair
        stored: OrderedDict[_Key, FeatureMap] = OrderedDict()

        def photo_by_photo(rows: Sequence[_Row]) -> Iterator[_Maps]:
            needed: dict[_Key, Photo | Features] = {}
            for row in rows:
                for side, category in zip((row.source, row.target), row.categories, strict=True):
                    needed[_key(side, category)] = side
            for key in needed.keys() & stored.keys():
                stored.move_to_end(key)
            missing = {key: side for key, side in needed.items() if key not in stored}
            photos = {key: side for key, side in missing.items() if isinstance(side, Photo)}
            stored.update((key, self._own(side).map) for key, side in missing.items() if isinstance(side, Features))
            for first in range(0, len(photos), batch_size):
                keys = list(photos)[first : first + batch_size]
                images = make_images([photos[key] for key in keys], [category for _, category, _ in keys], views)
                maps = extract_maps(backbone, images, prompt_embeddings(self.prompt, images), self.sampling)
                stored.update((key, maps[[number]]) for number, key in enumerate(keys))
            for row in rows:
                source, target = (
                    stored[_key(side, category)]
                    for side, category in zip((row.source, row.target), row.categories, strict=True)
                )
                yield source, target
            while (
                len(stored) > len(needed)
                and sum(features.values.nbytes for features in stored.values()) > _MAPS_IN_MEMORY
            ):
                stored.popitem(last=False)

        return photo_by_photo

    def _comes_back(self, maps: _Maps, queries: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
        back, _, valid = self._match_all(maps[1], maps[0], found)
        away = maps[0].grid.to_cells(back) - maps[0].grid.to_cells(queries)
        return ((away.abs() <= RETURN_CELLS).all(dim=-1) & valid)[0].cpu()


@dataclass(frozen=True)
class _Row:
    """Pair of `match_pairs`."""

    source: Photo | Features
    target: Photo | Features
    points: Points | None
    categories: tuple[str | None, str | None]

    @property
    def source_photo(self) -> Photo:
        return self.source.photo if isinstance(self.source, Features) else self.source

    @property
    def target_photo(self) -> Photo:
        return self.target.photo if isinstance(self.target, Features) else self.target


def _parse_pairs(pairs: Iterable[Pair], category: Any) -> list[_Row]:
    """Return the pairs with opened photos; each file is opened once."""
    if isinstance(pairs, (str, bytes, Mapping)) or not isinstance(pairs, Iterable):
        raise InputError(f"pairs must be a list of (source, target) or (source, target, points), not {shown(pairs)}")
    given = list(pairs)
    each = category if isinstance(category, list) else [category] * len(given)
    if len(each) != len(given):
        raise InputError(f"a list of categories has one for each of {len(given)} pairs, not {len(each)}")
    opened: dict[str, Photo] = {}

    def side(photo: PhotoLike | Features) -> Photo | Features:
        if isinstance(photo, Features):
            return photo
        if not isinstance(photo, (str, Path)):
            return as_photo(photo)
        if str(photo) not in opened:
            opened[str(photo)] = as_photo(photo)
        return opened[str(photo)]

    rows = []
    for number, (pair, own) in enumerate(zip(given, each, strict=True)):
        if not isinstance(pair, (tuple, list)) or len(pair) not in (2, 3):
            raise InputError(f"pairs[{number}] must be (source, target) or (source, target, points), not {shown(pair)}")
        points = pair[2] if len(pair) == 3 else None
        rows.append(_Row(side(pair[0]), side(pair[1]), points, _both(own)))
    return rows


_Key = tuple[str, str | None, str | None]


def _key(side: Photo | Features, category: str | None) -> _Key:
    """Return the key of a cached map: pixels, category, and the mask, which prompts may read."""
    photo, category = (side.photo, side.category) if isinstance(side, Features) else (side, category)
    return photo.key, category, None if photo.mask is None else digest(torch.from_numpy(photo.mask))


def _both(category: str | tuple[str, str] | None) -> tuple[str | None, str | None]:
    """Return the categories of source and target."""
    both = category if isinstance(category, (tuple, list)) else (category, category)
    if len(both) != 2:
        raise InputError(f"category must be a text, or a pair for source and target, not {shown(category)}")
    for own in both:
        _check_category(own)
    return both[0], both[1]


@contextmanager
def _reporting(progress: bool | Progress, total: int) -> Iterator[Progress]:
    """Provide the function that reports progress."""
    if not isinstance(progress, bool):
        yield progress
    elif not progress:
        yield lambda done, total: None
    else:
        from rich.progress import Progress as Bar

        with Bar() as bar:
            task = bar.add_task("matching pairs", total=total)
            yield lambda done, total: bar.update(task, completed=done)


def _wanted_points(points: Points | None, photo: Photo, side: int) -> torch.Tensor:
    """Return the points to match: those given, or a regular grid, inside the mask if there is one."""
    if points is not None:
        return check_points(points, photo)
    if photo.mask is None:
        return grid_points(photo.size, side=side)
    rows, columns = (np.flatnonzero(photo.mask.any(axis=axis)) for axis in (1, 0))
    height, width = (int(found[-1] - found[0]) + 1 for found in (rows, columns))
    points = grid_points((height, width), side=side) + torch.tensor([columns[0], rows[0]])
    x, y = points.round().long().unbind(-1)
    inside = points[torch.from_numpy(photo.mask)[y, x]]
    if len(inside):
        return inside
    y, x = torch.from_numpy(photo.mask).nonzero().unbind(-1)  # no point of the grid lies in a thin mask
    middle = len(x) // 2
    return torch.stack([x[middle], y[middle]])[None].float()


def _with_mask(features: FeatureMap, photo: Photo) -> FeatureMap:
    """Return a map with the cells that the photo's mask touches."""
    if photo.mask is None:
        return features
    mask = mask_to_cells(torch.from_numpy(photo.mask), features.grid)
    return replace(features, mask=mask[None].to(features.values.device))


def _check_category(category: object) -> None:
    if category is not None:
        check_text("category", category)


def _inside(points: torch.Tensor, photo: Photo) -> torch.Tensor:
    """Clamp points into the photo; the outermost cells of an enlarged photo reach half a pixel over its border."""
    height, width = photo.size
    return torch.stack([points[:, 0].clamp(0, width - 1), points[:, 1].clamp(0, height - 1)], dim=-1)
