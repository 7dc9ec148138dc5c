"""Pictures of `sd4match match`: heat maps under several prompts, dense matches, features, attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

    from sd4match.config.experiment import Components, ExperimentConfig
    from sd4match.dense import DenseMatch
    from sd4match.errors import InputError
    from sd4match.interfaces import Prompt
    from sd4match.pipeline import SemanticMatcher
    from sd4match.results import Features, MatchResult
    from sd4match.structures.images import Photo

KINDS = ("heat", "dense", "warp", "features", "attention")
"""Kinds of pictures of `--draw`; each is written to NAME.png."""
_MOST_POINTS = 8
"""Points whose heat maps are drawn, below each other."""


def check_pictures(draw: Sequence[str] | None, compare: Sequence[str] | None, category: str | None) -> list[str]:
    """Return the kinds of pictures to draw, each once and in the order of `KINDS`; `--compare` adds heat maps.

    Raises:
        InputError: a kind is unknown, or "text" is compared without a category.
    """
    from sd4match.errors import InputError, choose_from, shown

    wanted = {*(draw or ()), *(("heat",) if compare else ())}
    for kind in wanted - {*KINDS}:
        raise InputError(f"--draw {shown(kind)} is no picture: {choose_from(kind, KINDS)}")
    if category is None and "text" in (compare or ()):
        raise _needs_category("text")
    return [kind for kind in KINDS if kind in wanted]


def _needs_category(name: str) -> InputError:
    from sd4match.errors import InputError

    return InputError(f"--compare {name} needs to know what is in the photos: give --category NAME")


@dataclass(frozen=True)
class Pictures:
    """Inputs of the pictures of a match.

    Args:
        matcher: matcher that was used.
        sides: features of source and target, or the photos if the prompt depends on both.
        photos: source and target.
        result: result of the match.
        points: points of the command line; None for a grid.
        category: category of both photos.
        label: name of the prompt.
        others: matchers of `--compare`, by the names of their prompts.
    """

    matcher: SemanticMatcher
    sides: tuple[Photo | Features, Photo | Features]
    photos: tuple[Photo, Photo]
    result: MatchResult
    points: Sequence[tuple[float, float]] | None
    category: str | None
    label: str
    others: dict[str, SemanticMatcher]

    def draw(self, kinds: Sequence[str]) -> dict[str, Image.Image]:
        """Return pictures by kind.

        Raises:
            InputError: there is no match for heat maps, or the backbone has no attention.
        """
        makers: dict[str, Callable[[], Image.Image]] = {
            "heat": self._heat, "dense": self._dense, "warp": self._warp, "features": self._features,
            "attention": self._attention,
        }  # fmt: skip
        return {kind: makers[kind]() for kind in kinds}

    def _heat(self) -> Image.Image:
        from sd4match.errors import InputError
        from sd4match.viz.heat import draw_heat_maps
        from sd4match.viz.matches import stack

        queries = self.points or self.result.source_points[self.result.scores.argsort()[::-1][:1]].tolist()
        if not queries:
            raise InputError("--draw heat has no point to show, because no point was matched: give --point X,Y")
        queries = queries[:_MOST_POINTS]
        maps = {self.label: self.matcher.correlate(*self.sides, queries, category=self.category)}
        for label, other in self.others.items():
            maps[label] = other.correlate(*self.photos, queries, category=self.category)
        return stack([draw_heat_maps(*self.photos, maps, query=number) for number in range(len(queries))])

    @cached_property
    def dense_match(self) -> DenseMatch:
        """Match of every pixel, which two of the pictures show."""
        return self.matcher.match_dense(*self.sides, category=self.category, cycle=False)

    def _dense(self) -> Image.Image:
        from sd4match.viz.dense import draw_correspondence

        return draw_correspondence(self.dense_match)

    def _warp(self) -> Image.Image:
        from sd4match.viz.dense import draw_warp

        return draw_warp(self.dense_match)

    def _features(self) -> Image.Image:
        from sd4match.viz.features import draw_features

        height, width = self.photos[0].size
        middle = [((width - 1) / 2, (height - 1) / 2)]
        maps = self.matcher.correlate(*self.sides, middle, category=self.category)
        return draw_features(self.photos, [maps.source, maps.target], captions=["source", "target"])

    def _attention(self) -> Image.Image:
        from sd4match.viz.attention import draw_attention
        from sd4match.viz.matches import stack

        pair = self.photos if self.matcher.prompt.scope == "pair" else None
        drawn = []
        for photo, title in zip(self.photos, ("source", "target"), strict=True):
            attention, labels = self.matcher.attention(photo, category=self.category, pair=pair)
            drawn.append(draw_attention(photo, attention, labels, title=f"{title}: {self.label}"))
        return stack(drawn)


def compared_matchers(
    names: Sequence[str],
    components: Components,
    config: ExperimentConfig,
    category: str | None,
    *,
    file: str | None = None,
) -> tuple[str, dict[str, SemanticMatcher]]:
    """Return the name of the prompt of a match in pictures, and matchers for the other prompts of `--compare` by name.

    A prompt is named by its text or its file. A prompt that is given twice, or is that of the match, is drawn once.

    Args:
        names: "empty", "text" or files of prompts.
        components: of the match; the other matchers have the same backbone.
        config: of the match.
        category: of both photos.
        file: of the match's own prompt.

    Raises:
        InputError: a prompt needs a category, and there is none.
        PromptFileError: a file cannot be read.
    """
    from sd4match.pipeline import SemanticMatcher
    from sd4match.prompting.serialization import load_prompt
    from sd4match.prompting.text import EmptyPrompt, TextPrompt

    named = {"empty": EmptyPrompt, "text": TextPrompt}
    own = _text_of(components.prompt, category) if file is None else Path(file).resolve()
    prompts: dict[str | Path, Prompt] = {own: components.prompt}
    for name in names:
        key: str | Path = Path(name).resolve()
        if name not in named and key in prompts:
            continue
        prompt = (named[name] if name in named else partial(load_prompt, name))(backbone=components.backbone)
        if category is None and prompt.scope == "category":
            raise _needs_category(name)
        prompts.setdefault(_text_of(prompt, category) if name in named else key, prompt)
    label, *others = prompt_labels([*prompts])
    matchers = {
        other: SemanticMatcher.from_components(replace(components, prompt=prompt), config)
        for other, prompt in zip(others, [*prompts.values()][1:], strict=True)
    }
    return label, matchers


def _text_of(prompt: Prompt, category: str | None) -> str:
    from sd4match.prompting.text import EmptyPrompt, TextPrompt

    if isinstance(prompt, TextPrompt):
        return prompt.text(category)
    return "empty prompt" if isinstance(prompt, EmptyPrompt) else prompt.config.kind if prompt.config else "prompt"


def prompt_labels(prompts: Sequence[str | Path]) -> list[str]:
    """Return names of prompts for pictures: a text, or the name of a file with the folders that make it unique.

    Args:
        prompts: texts, and absolute paths of prompt files; no two are equal.

    >>> prompt_labels(["empty prompt", Path("/runs/single/prompt.safetensors")])
    ['empty prompt', 'prompt']
    >>> prompt_labels([Path("/runs/single/prompt.safetensors"), Path("/runs/class/prompt.safetensors")])
    ['single/prompt', 'class/prompt']
    """
    return [
        prompt if isinstance(prompt, str) else _file_label(prompt, [other for other in prompts if other != prompt])
        for prompt in prompts
    ]


def _file_label(file: Path, others: Sequence[str | Path]) -> str:
    def ending(path: Path, depth: int) -> str:
        return "/".join([*path.parts[-depth:-1], path.stem])

    for depth in range(1, len(file.parts)):
        label = ending(file, depth)
        if label not in {other if isinstance(other, str) else ending(other, depth) for other in others}:
            return label
    return str(file)
