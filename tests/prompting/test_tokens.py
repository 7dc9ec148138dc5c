"""Token vectors between BOS and EOS."""

from __future__ import annotations

import torch

from sd4match.prompting import encode_token_vectors


def test_token_vectors_of_a_text_give_its_embedding(mini):
    """Check that token vectors contain their positions: those of a text give the embedding of the text."""
    text = mini.text_encoder
    ids = text.tokenize(["a photo of a fish"])
    vectors = text.embed(ids)[:, 1:6]
    torch.testing.assert_close(
        encode_token_vectors(text, vectors), text.model(ids).last_hidden_state, atol=1e-5, rtol=1e-5
    )
