"""Where learned vectors start: words, a text, uniform noise, or another prompt's file."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sd4match.errors import InputError, PromptMismatchError
from sd4match.interfaces import Backbone, TextEncoder
from sd4match.prompting.config import ClassPromptConfig, ConditionalPromptConfig, SinglePromptConfig
from sd4match.prompting.serialization import check_fits, read_prompt
from sd4match.prompting.tokens import random_slots

Space = Literal["token", "hidden"]
Startable = SinglePromptConfig | ClassPromptConfig | ConditionalPromptConfig


@torch.no_grad()
def initial_vectors(
    text: TextEncoder, *, space: Space, slots: int, init: str, seed: int
) -> Float[Tensor, "slots width"]:
    """Vectors to start learning from.

    Args:
        text: of the backbone.
        space: "token": (slots, D), positions added; "hidden": (L, D), whatever `slots` says.
        slots: vectors between BOS and EOS.
        init: "random": words of the vocabulary (U[0, 1) in hidden space); "uniform": U[0, 1); "empty"; or a text, whose
            tokens take the first slots, EOS and padding the others.
        seed: of the random ones.

    Raises:
        InputError: a text of more tokens than slots.

    >>> from sd4match.testing import FakeTextEncoder
    >>> initial_vectors(FakeTextEncoder(), space="token", slots=3, init="empty", seed=0).shape
    torch.Size([3, 8])
    """
    count = slots if space == "token" else text.token_budget
    if init == "uniform" or (init == "random" and space == "hidden"):
        return torch.rand(count, text.width, generator=torch.Generator().manual_seed(seed))
    if init == "random":
        return random_slots(text, slots, seed=seed)
    ids = text.tokenize(["" if init == "empty" else init])
    embedded = text.embed(ids)
    if space == "token" and _words(ids[0], text) > slots:
        raise InputError(f"init {init!r} has {_words(ids[0], text)} tokens, and the prompt {slots} slots")
    if space == "hidden":
        return text.transform(embedded)[0].float()
    return embedded[0, 1 : slots + 1].float()


def _words(ids: Tensor, text: TextEncoder) -> int:
    """How many tokens stand between BOS and EOS."""
    counts = range(text.token_budget - 1)
    return next(count for count in counts if torch.equal(ids[count + 1 :], text.frame_ids(count)[count + 1 :]))


def take_over(prompt: nn.Module, config: Startable, backbone: Backbone) -> None:
    """Take over what the config's `start_from` holds, if it names a file.

    A prompt of the same kind gives all it has. A Single gives its vectors to every category of a Class, and its first
    ones to the global vectors of a CPM.

    Raises:
        PromptMismatchError: another architecture, layer, space, number of slots, or a kind that has nothing to give.
    """
    if config.start_from is None:
        return
    state = _state_from_file(config.start_from, config, backbone)
    own = prompt.state_dict()
    wrong = [name for name, value in state.items() if name not in own or own[name].shape != value.shape]
    if wrong:
        name = wrong[0]
        here = tuple(own[name].shape) if name in own else "nothing"
        raise PromptMismatchError(
            f"{config.start_from} has {name} {tuple(state[name].shape)}; this {config.kind} prompt has {here} there"
        )
    prompt.load_state_dict({**own, **state})


def _state_from_file(path: str, config: Startable, backbone: Backbone) -> dict[str, Tensor]:
    info, tensors = read_prompt(path)
    check_fits(info, path, backbone)
    given = info.config
    if given.kind == config.kind:
        if isinstance(given, ClassPromptConfig) and given.categories != getattr(config, "categories", ()):
            raise PromptMismatchError(f"{path} holds prompts of other categories: {', '.join(given.categories)}")
        return tensors
    if isinstance(config, SinglePromptConfig) or not isinstance(given, SinglePromptConfig):
        raise PromptMismatchError(f"a {config.kind} prompt cannot start from {path}, which holds a {given.kind}")
    space: Space = "token" if isinstance(config, ConditionalPromptConfig) else config.space
    if given.space != space:
        raise PromptMismatchError(f"{path} was learned in {given.space} space; this {config.kind} needs {space} space")
    if isinstance(config, ClassPromptConfig):
        ((name, vectors),) = tensors.items()
        return {f"{name}.{row}": vectors.clone() for row in range(len(config.categories))}
    vectors = tensors["token_embeddings"]
    if len(vectors) < config.global_slots:
        raise PromptMismatchError(
            f"{path} holds {len(vectors)} vectors; prompt.global_slots = {config.global_slots} needs as many"
        )
    return {"global_embeddings": vectors[: config.global_slots].clone()} if config.global_slots else {}
