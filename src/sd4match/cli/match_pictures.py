"""Pictures of `sd4match match`: heat maps under several prompts, dense matches, features, attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

    from sd4match.config.experiment import Components, ExperimentConfig
    from sd4match.interfaces import Prompt
    from sd4match.pipeline import SemanticMatcher
    from sd4match.results import Features, MatchResult
    from sd4match.structures.images import Photo

KINDS = ("heat", "dense", "warp", "features", "attention")
"""Pictures that `--draw` knows; each is written as NAME.png."""
_MOST_POINTS = 8
"""Points whose heat maps are drawn, below each other."""


def check_pictures(draw: Sequence[str] | None, compare: Sequence[str] | None) -> list[str]:
    """Return which pictures to draw, each once, in the order of `KINDS`; `--compare` asks for heat maps.

    Raises:
        InputError: a kind that is not known, or a prompt that is given twice.
    """
    from sd4match.errors import InputError, choose_from, shown

    wanted = {*(draw or ()), *(("heat",) if compare else ())}
    for kind in wanted - {*KINDS}:
        raise InputError(f"--draw {shown(kind)} is no picture: {choose_from(kind, KINDS)}")
    if len({*(compare or ())}) < len(compare or ()):
        raise InputError("--compare names a prompt twice")
    return [kind for kind in KINDS if kind in wanted]


@dataclass(frozen=True)
class Pictures:
    """What pictures of a match are drawn from.

    Args:
        matcher: of the match.
        sides: source and target, extracted if the prompt allows it.
        photos: source and target.
        result: the match.
        points: that were asked for; None for a grid.
        category: of both photos.
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
        """Return the pictures of some kinds, by their names.

        Raises:
            InputError: heat maps are wanted and nothing was matched, or the backbone has no attention.
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

    def _dense(self) -> Image.Image:
        from sd4match.viz.dense import draw_correspondence

        return draw_correspondence(self.matcher.match_dense(*self.sides, category=self.category, cycle=False))

    def _warp(self) -> Image.Image:
        from sd4match.viz.dense import draw_warp

        return draw_warp(self.matcher.match_dense(*self.sides, category=self.category, cycle=False))

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


def prompt_label(prompt: Prompt, file: str | None, category: str | None) -> str:
    """Return what pictures call a prompt: its text, or the name of its file."""
    from sd4match.prompting.text import EmptyPrompt, TextPrompt

    if file is not None:
        return Path(file).stem
    if isinstance(prompt, TextPrompt):
        return prompt.text(category)
    return "empty prompt" if isinstance(prompt, EmptyPrompt) else prompt.config.kind if prompt.config else "prompt"


def compared_matchers(
    names: Sequence[str], components: Components, config: ExperimentConfig, category: str | None, *, label: str
) -> dict[str, SemanticMatcher]:
    """Return a matcher for each prompt of `--compare`, on the same backbone, by the labels of the prompts.

    Raises:
        InputError: two prompts have the same label, or "text" has no category.
        PromptFileError: a file cannot be read.
    """
    from sd4match.errors import InputError
    from sd4match.pipeline import SemanticMatcher
    from sd4match.prompting.serialization import load_prompt
    from sd4match.prompting.text import EmptyPrompt, TextPrompt

    named = {"empty": EmptyPrompt, "text": TextPrompt}
    matchers: dict[str, SemanticMatcher] = {}
    for name in names:
        file = None if name in named else name
        prompt = (
            named[name](backbone=components.backbone)
            if file is None
            else load_prompt(file, backbone=components.backbone)
        )
        if category is None and prompt.scope == "category":
            raise InputError(f"--compare {name} needs to know what is in the photos: give --category NAME")
        own = prompt_label(prompt, file, category)
        if own in (label, *matchers):
            raise InputError(f"--compare {name}: a prompt of the name {own!r} is drawn already")
        matchers[own] = SemanticMatcher.from_components(replace(components, prompt=prompt), config)
    return matchers
