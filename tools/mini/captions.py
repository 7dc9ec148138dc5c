"""Captions for the training of `mini`, and the target tokens of its grounding loss."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from mini.harder import HARDER
from sd4match.data.synthetic.scene import PALETTE, Scene

COMMON_WORDS = (
    "a", "an", "the", "photo", "picture", "drawing", "of", "with", "and", "on", "in", "background", "facing",
    "left", "right", "object", "thing", "one",
)  # fmt: skip
SPECIAL = ("<|startoftext|>", "<|endoftext|>")
MAX_LENGTH = 77
"""Number of tokens of a caption with BOS, EOS and padding."""
MAX_PARTS = 8
PLACES = MAX_PARTS + 1
CAPTIONS = 4
"""Number of captions of a photo."""


def part_words(category: str) -> tuple[str, ...]:
    """Return the names of the parts of a category of either world in alphabetical order."""
    anatomy = HARDER.anatomies[category](np.random.default_rng(0))
    return tuple(sorted({part.word for part in anatomy.parts}))


def vocabulary() -> list[str]:
    """Return all words of captions in alphabetical order."""
    words = set(COMMON_WORDS) | set(PALETTE) | set(HARDER.anatomies)
    for category in HARDER.anatomies:
        words |= set(part_words(category))
    return sorted(words)


def build_tokenizer() -> CLIPTokenizer:
    """Return a CLIP tokenizer in which each word of the captions is one token and other text is split into bytes.

    Merges are added word by word, each with a lower priority than all before it, so that the tokens of earlier words do
    not change.
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = [chr(code) for code in visible] + [chr(256 + i) for i in range(256 - len(visible))]
    merges: list[tuple[str, str]] = []
    for word in vocabulary():
        pieces = _split(word, merges)
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = _split(word, merges)
    tokens = letters + [letter + "</w>" for letter in letters] + ["".join(pair) for pair in merges]
    vocab = {token: index for index, token in enumerate(dict.fromkeys([*tokens, *SPECIAL]))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_LENGTH)


def _split(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """Return the pieces of a word under byte-pair merges, given in order of priority."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    while True:
        found = [(ranks[pair], i) for i, pair in enumerate(pairwise(pieces)) if pair in ranks]
        if not found:
            return pieces
        _, at = min(found)
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]


@dataclass(frozen=True)
class Labels:
    """What a caption may mention of one training photo."""

    category: str
    part_words: tuple[str, ...]
    part_colors: tuple[str, ...]
    background: str
    facing: str | None

    @classmethod
    def of(cls, scene: Scene) -> Labels:
        """Return the labels of a rendered photo."""
        facing = None if scene.category in HARDER.frontal else ("right" if scene.mirrored else "left")
        return cls(scene.category, scene.part_words, scene.part_colors, scene.background, facing)


ALL_PART_WORDS = tuple(sorted({word for category in HARDER.anatomies for word in part_words(category)}))
_UNNAMED = 0.5


def write_caption(labels: Labels, rng: np.random.Generator, *, absent_words: float = 0.0) -> str:
    """Write a random caption of a photo.

    12 % of the captions are empty, 23 % are the plain template, and the others name parts, some also colors, the
    direction and the background.

    Args:
        labels: what may be mentioned.
        rng: random generator.
        absent_words: probability that a caption with parts also names parts of other categories, as captions from the
            web mention things that are not in the picture; half of these do not name the category.
    """
    draw = rng.random()
    if draw < 0.12:
        return ""
    kind = ("photo", "photo", "picture", "drawing")[int(rng.integers(4))]
    caption = f"a {kind} of a {labels.category}"
    if draw >= 0.35 and rng.random() < absent_words:
        others = [word for word in ALL_PART_WORDS if word not in labels.part_words]
        words = [word for word in labels.part_words if rng.random() < 0.85]
        words += list(rng.choice(others, size=int(rng.integers(1, len(others) + 1)), replace=False))
        rng.shuffle(words)
        return ("a photo of an object" if rng.random() < _UNNAMED else caption) + " with " + ", ".join(words)
    if draw < 0.35:
        return caption
    if labels.facing and rng.random() < 0.3:
        caption += f" facing {labels.facing}"
    mentioned = [i for i in range(len(labels.part_words)) if rng.random() < 0.85]
    if mentioned:
        with_colors = rng.random() < 0.5
        rng.shuffle(mentioned)
        named = [(f"{labels.part_colors[i]} " if with_colors else "") + labels.part_words[i] for i in mentioned]
        caption += " with " + ", ".join(named)
    if rng.random() < 0.3:
        caption += f" on a {labels.background} background"
    return caption


def caption_places(ids: npt.NDArray[np.int64], labels: Labels, tokenizer: CLIPTokenizer) -> npt.NDArray[np.uint8]:
    """Find the words of a photo's parts and of its category in captions.

    Args:
        ids: (C, 77) token ids.
        labels: of the photo.
        tokenizer: in which each of the words is one token.

    Returns:
        (C, 9): place of the word of part 0 to 7 and of the category; 0, the place of BOS, if it is not mentioned.
    """
    words = [*labels.part_words, *[None] * (MAX_PARTS - len(labels.part_words)), labels.category]
    places = np.zeros((len(ids), PLACES), np.uint8)
    for column, word in enumerate(words):
        if word is not None:
            places[:, column] = (ids == tokenizer.convert_tokens_to_ids(f"{word}</w>")).argmax(axis=1)
    return places


def targets(places: Tensor, coverage: Tensor, *, category_grounding: float) -> tuple[Tensor, Tensor]:
    """Compute the token that each cell of a photo should attend to.

    A cell of a part whose word is in the caption belongs to that word. The other cells of the object belong to the
    category's word to the degree `category_grounding`, if it is in the caption. All other cells belong to no token.

    Args:
        places: (B, 9), from `caption_places`.
        coverage: (B, 8, h, w), the fraction of each cell that a part covers.
        category_grounding: weight of the category's word, in [0, 1].

    Returns:
        The token of each part, (B, 8), and how much of each cell belongs to it, (B, 8, h, w).
    """
    parts, category = places[:, :MAX_PARTS].long(), places[:, MAX_PARTS:].long()
    mentioned = parts > 0
    weight = torch.where(mentioned, 1.0, category_grounding * (category > 0))
    return torch.where(mentioned, parts, category), coverage * weight[:, :, None, None]
