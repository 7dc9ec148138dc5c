"""Pictures of the attention of a photo to each token of a prompt."""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image

from sd4match.arguments import check_arguments
from sd4match.checks import check_count
from sd4match.errors import InputError, ShapeError
from sd4match.structures.images import Photo
from sd4match.structures.tensors import FeatureMap
from sd4match.viz.heat import heat_panel
from sd4match.viz.layout import LARGEST_HEIGHT, Panel, at_height, in_rows

_MOST_TOKENS = 200
_COLUMNS = 5


@check_arguments
def draw_attention(
    photo: Photo, attention: FeatureMap, labels: Mapping[int, str], *, title: str = "", height: int = 200
) -> Image.Image:
    """Draw the photo, and a heat map of its attention to each of some tokens, each with its own scale.

    Args:
        photo: photo whose attention is drawn.
        attention: (1, L, h, w), from `backbones.token_attention` or `SemanticMatcher.attention`.
        labels: text above the map of each drawn token, by its index from 0 to L - 1; 1 to 200 tokens.
        title: text above all of them.
        height: height of the photo in each map, in pixels, from 1 to 4000.

    Raises:
        ShapeError: the attention is not of one photo.
        InputError: there is no label, or one of a token that the attention does not have.

    >>> import numpy as np, torch
    >>> from sd4match.geometry import Grid, own_frame
    >>> photo = Photo(np.zeros((40, 60, 3), dtype=np.uint8))
    >>> attention = FeatureMap(torch.rand(1, 77, 4, 6), Grid((own_frame((40, 60)),), (4, 6)))
    >>> draw_attention(photo, attention, {1: "a", 2: "photo"}, height=160).size
    (744, 204)
    """
    check_count("height", height, 1, LARGEST_HEIGHT)
    if len(attention) != 1:
        raise ShapeError(f"attention must be of one photo, not of {len(attention)}")
    tokens = attention.values.shape[1]
    if not labels or len(labels) > _MOST_TOKENS:
        raise InputError(f"labels must be of 1 to {_MOST_TOKENS} tokens, not of {len(labels)}")
    for position in labels:
        check_count("the position of a label", position, 0, tokens - 1)
    panels = [
        heat_panel(photo, attention.values[0, position], attention.grid, label, height=height)
        for position, label in labels.items()
    ]
    return in_rows([Panel(at_height(photo, height), photo.name), *panels], title=title, most=_COLUMNS)
