"""Token vectors: the input of the text transformer between BOS and EOS."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sd4match.arguments import check_arguments
from sd4match.checks import LARGEST_SEED, check_count, check_finite, check_shape
from sd4match.interfaces import TextEncoder
from sd4match.prompting.text import RANGE_HINT


@check_arguments
def encode_token_vectors(
    text_encoder: TextEncoder, vectors: Float[Tensor, "batch vectors width"]
) -> Float[Tensor, "batch tokens width"]:
    """Encode [BOS, vectors, EOS, padding] with the text transformer.

    Convention: position embeddings are added to BOS, EOS and padding, but not to the vectors. Learned vectors are
    therefore initialized from token embeddings with positions added.

    Args:
        text_encoder: text encoder of the backbone.
        vectors: (B, S, D), with S + 2 <= L.

    Returns:
        The prompt embedding (B, L, D), differentiable in `vectors`.

    Raises:
        ShapeError: the vectors do not fit into L, or are of another width than the text encoder's.
        NonFiniteError: the vectors are not finite, or the text encoder overflows.

    >>> from sd4match.testing import FakeTextEncoder
    >>> encode_token_vectors(FakeTextEncoder(), torch.zeros(2, 5, 8)).shape
    torch.Size([2, 77, 8])
    """
    check_shape("the vectors of a prompt", vectors, "B _ D", D=text_encoder.width)
    num_tokens = vectors.shape[1]
    template = text_encoder.embed(text_encoder.template_ids(num_tokens)[None]).expand(vectors.shape[0], -1, -1)
    inputs = torch.cat([template[:, :1], vectors.to(template), template[:, num_tokens + 1 :]], dim=1)
    values = text_encoder.encode(inputs)
    if not bool(values.isfinite().all()):
        check_finite("the vectors of the prompt", vectors)
        check_finite(f"the embedded vectors of the prompt in {values.dtype}", values, RANGE_HINT)
    return values


@check_arguments
def random_token_vectors(
    text_encoder: TextEncoder, num_tokens: int, *, seed: int
) -> Float[Tensor, "{num_tokens} width"]:
    """Return embeddings of random tokens of the vocabulary, with positions added, as initial values of a prompt.

    Args:
        text_encoder: text encoder of the backbone.
        num_tokens: number S of tokens, with 1 <= S <= L - 2.
        seed: seed of the random tokens, >= 0.

    Returns:
        (S, D), float32.

    Raises:
        ShapeError: the tokens do not fit into L.
        InputError: `num_tokens` or `seed` is out of range.

    >>> from sd4match.testing import FakeTextEncoder
    >>> random_token_vectors(FakeTextEncoder(), 5, seed=0).shape
    torch.Size([5, 8])
    """
    check_count("seed", seed, 0, LARGEST_SEED)
    check_count("num_tokens", num_tokens)
    ids = text_encoder.template_ids(num_tokens).clone()
    vocab_size = text_encoder.token_embeddings().shape[0]
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(vocab_size, (num_tokens,), generator=generator)
    ids[1 : num_tokens + 1] = tokens.to(ids)
    with torch.no_grad():
        return text_encoder.embed(ids[None])[0, 1 : num_tokens + 1].float()
