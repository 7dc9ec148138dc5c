"""Captions for the training of `mini`, and the target tokens of its grounding loss."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from transformers import CLIPTokenizer

from sd4match.data.synthetic.anatomy import ANATOMIES, part_words
from sd4match.data.synthetic.scene import PALETTE

COMMON_WORDS = (
    "a", "an", "the", "photo", "picture", "drawing", "of", "with", "and", "on", "in", "background", "facing",
    "left", "right", "object", "thing", "one",
)  # fmt: skip
SPECIAL = ("<|startoftext|>", "<|endoftext|>")
MAX_LENGTH = 77
"""Number of tokens of a caption with BOS, EOS and padding."""


def vocabulary() -> list[str]:
    """Return all words of captions in alphabetical order."""
    words = set(COMMON_WORDS) | set(PALETTE) | set(ANATOMIES)
    for category in ANATOMIES:
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


ALL_PART_WORDS = tuple(sorted({word for category in ANATOMIES for word in part_words(category)}))
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


def target_tokens(
    input_ids: torch.Tensor,
    labels: list[Labels],
    coverage: torch.Tensor,
    word_ids: dict[str, int],
    *,
    category_grounding: float,
) -> torch.Tensor:
    """Compute the token that each cell of a photo should attend to.

    A cell of a part whose word is in the caption belongs to that word. The other cells of the object belong to the
    category's word to the degree `category_grounding`, if it is in the caption. All other cells belong to no token.

    Args:
        input_ids: (B, 77) token ids.
        labels: of B photos.
        coverage: (B, K, h, w), the fraction of each cell that part k covers.
        word_ids: token id of each word.
        category_grounding: weight of the category's word, in [0, 1].

    Returns:
        (B, 77, h, w), non-negative, with a sum of at most 1 over tokens.
    """
    targets = coverage.new_zeros(len(labels), input_ids.shape[1], *coverage.shape[2:])
    for row, (ids, label) in enumerate(zip(input_ids.tolist(), labels, strict=True)):
        category = word_ids[label.category]
        for k, word in enumerate(label.part_words):
            if word_ids[word] in ids:
                targets[row, ids.index(word_ids[word])] += coverage[row, k]
            elif category in ids:
                targets[row, ids.index(category)] += category_grounding * coverage[row, k]
    return targets
