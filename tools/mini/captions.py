"""Captions for training `mini`, and where in them the words stand that the grounding loss points at."""

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
SLOTS = 77


def vocabulary() -> list[str]:
    """Every word of every caption, sorted."""
    words = set(COMMON_WORDS) | set(PALETTE) | set(ANATOMIES)
    for category in ANATOMIES:
        words |= set(part_words(category))
    return sorted(words)


def build_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer in which each word of the captions is one token and any other text still splits into bytes.

    Merges are added one word after the other: what a word still falls into gets merged, at the lowest priority so
    far, which leaves the words before it as they were.
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
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=SLOTS)


def _split(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """The pieces of one word under byte-pair merges in order of priority."""
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
    """What a caption may say about one training photo."""

    category: str
    part_words: tuple[str, ...]
    part_colours: tuple[str, ...]
    background: str
    facing: str | None


ALL_PART_WORDS = tuple(sorted({word for category in ANATOMIES for word in part_words(category)}))
_UNNAMED = 0.5


def write_caption(labels: Labels, rng: np.random.Generator, *, absent_words: float = 0.0) -> str:
    """12 % empty, 23 % the plain template, the rest with parts and, each at times, colours, direction, background.

    With probability `absent_words` a caption with parts also mentions parts of other categories, as captions of the web
    mention what is not in the picture, and half of those do not name the category.
    """
    draw = rng.random()
    if draw < 0.12:
        return ""
    kind = ("photo", "photo", "picture", "drawing")[int(rng.integers(4))]
    caption = f"a {kind} of a {labels.category}"
    if draw >= 0.35 and rng.random() < absent_words:
        others = [word for word in ALL_PART_WORDS if word not in labels.part_words]
        mentioned = [word for word in labels.part_words if rng.random() < 0.85]
        mentioned += list(rng.choice(others, size=int(rng.integers(1, len(others) + 1)), replace=False))
        rng.shuffle(mentioned)
        return ("a photo of an object" if rng.random() < _UNNAMED else caption) + " with " + ", ".join(mentioned)
    if draw < 0.35:
        return caption
    if labels.facing and rng.random() < 0.3:
        caption += f" facing {labels.facing}"
    kept = [i for i in range(len(labels.part_words)) if rng.random() < 0.85]
    if kept:
        coloured = rng.random() < 0.5
        rng.shuffle(kept)
        named = [(f"{labels.part_colours[i]} " if coloured else "") + labels.part_words[i] for i in kept]
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
    """Which text slot each place of the photo belongs to.

    A place of a part whose word stands in the caption belongs to that word; all other places belong to none, but see
    `category_grounding`.

    Args:
        input_ids: (B, 77).
        labels: B of them.
        coverage: (B, K, h, w), the share of each cell that part k covers.
        word_ids: token id of each word.
        category_grounding: share to which the object's other places belong to the category's word, if it stands there.

    Returns:
        (B, 77, h, w), at most 1 summed over slots.
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
