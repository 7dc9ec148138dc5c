"""Conformance of prompts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import torch
from torch import Tensor

from sd4match.arguments import check_arguments
from sd4match.checks import check_number
from sd4match.data.collate import make_images
from sd4match.errors import SD4MatchError, shown
from sd4match.interfaces import Backbone, ImageEncoder, Prompt, Scope, TextEncoder, evaluation_mode
from sd4match.interfaces.calls import describe_component
from sd4match.prompting.config import PromptConfig
from sd4match.prompting.pairing import preprocessors
from sd4match.prompting.serialization import UnknownWeightsWarning, load_prompt, save_prompt
from sd4match.registry import prompts
from sd4match.structures.images import ImageBatch, Photo
from sd4match.structures.tensors import PromptEmbedding
from sd4match.testing.config import FakeBackboneConfig
from sd4match.testing.conformance.common import (
    SIZES,
    ask,
    change,
    check_config,
    check_device,
    check_learned,
    check_state,
    close,
    config_of,
    equal,
    has_tensors,
    hold,
    learned,
    promising,
)
from sd4match.testing.fakes import random_photo

_CATEGORIES = ("cat", "dog", "fish")


@check_arguments
def check_prompt(
    prompt: Any, *, backbone: Backbone | None = None, categories: Sequence[str] | None = None, tolerance: float = 1e-5
) -> None:
    """Check that a prompt keeps the promises of `Prompt`.

    - Embeddings are (B, L, D) or (1, L, D), finite, the same each time, and independent of the rest of the batch.
    - They depend on nothing but the inputs that `scope` names. A missing category raises an error if the scope is
      "category", and has no effect otherwise.
    - All learned parameters are in the groups and get a gradient. Frozen networks are not in the state dict.
    - A prompt that is built from its config, saved or loaded gives the same embeddings.
    - It computes on the device that it is moved to.

    Args:
        prompt: a prompt, or its config, registered class or kind.
        backbone: backbone that the prompt was or will be built on; a fake one by default.
        categories: categories of the photos; by default those of the prompt's config, or three animals.
        tolerance: largest difference between batches of different size, relative to the largest number, >= 0.

    Raises:
        AssertionError: a promise is broken; the message says which.

    >>> check_prompt("single")
    """
    check_number("tolerance", tolerance, low=0.0)
    own, backbone = backbone is None, backbone or FakeBackboneConfig().build()
    if not isinstance(prompt, Prompt):
        prompt = _built(prompt, backbone, categories or _CATEGORIES)
    name = describe_component("prompt", prompt)
    scopes = get_args(Scope)
    hold(prompt.scope in scopes, f"the scope of {name} must be one of {', '.join(scopes)}, not {shown(prompt.scope)}")
    inputs = _Inputs(name, backbone, categories or getattr(prompt.config, "categories", ()) or _CATEGORIES)
    _check_state_dict(name, prompt, backbone)
    with evaluation_mode(prompt), torch.no_grad():
        _check_embeddings(name, prompt, inputs, tolerance)
        _check_scope(name, prompt, inputs)
    check_learned(name, prompt, lambda: _total(inputs.embed(prompt)))
    if isinstance(prompt.config, PromptConfig):
        _check_config(name, prompt, prompt.config, inputs, tolerance)
    else:
        check_state(name, prompt, inputs.embed)
    if has_tensors(backbone):
        _check_device(name, prompt, inputs, own=own, tolerance=tolerance)


def _built(prompt: object, backbone: Backbone, categories: Sequence[str]) -> Prompt:
    """Return the prompt of a config, after a check that building it twice gives the same values."""
    config: Any = config_of(prompts, prompt)
    config = config.for_categories(categories) if config.wants_categories else config
    name = f"the prompt {config.kind!r}"
    promise = f"{name} must be built from its config"
    with promising(promise):
        made = [config.build(backbone=backbone) for _ in range(2)]
        hold(all(isinstance(prompt, Prompt) for prompt in made), f"{promise}, to a Prompt")
    hold(made[0].config == config, f"{name} must have the config that it was built from, config")
    states = [prompt.state_dict() for prompt in made]
    same = states[0].keys() == states[1].keys() and all(equal(states[0][key], states[1][key]) for key in states[0])
    hold(same, f"{name} must be built from its config with the same values each time: draw them from a seed in it")
    built: Prompt = made[0]
    return built


class _Inputs:
    """Photos, their partners and their categories.

    Args:
        name: name of the prompt in messages.
        backbone: backbone of the prompt.
        categories: categories of the photos.
    """

    def __init__(self, name: str, backbone: Backbone, categories: Sequence[str]) -> None:
        self.name = name
        self.backbone = backbone
        self.categories = tuple(categories)
        self.count = max(len(SIZES), len(categories))

    def images(
        self, prompt: Prompt, rows: Sequence[int], *, photos: int = 0, turn: int = 0, named: bool = True
    ) -> ImageBatch:
        """Return photos with categories.

        Args:
            prompt: prompt whose preprocessing is used.
            rows: indices of the photos.
            photos: other photos for another number.
            turn: shift of the categories.
            named: False leaves the categories out.
        """
        made = [_photo(row, seed=row + photos) for row in rows]
        names = [self.categories[(row + turn) % len(self.categories)] if named else None for row in rows]
        with promising(f"{self.name} must prepare photos"):
            return make_images(made, names, preprocessors(self.backbone, prompt))

    def embed(
        self, prompt: Prompt, rows: Sequence[int] | None = None, *, partners: int | None = None, **options: Any
    ) -> Tensor:
        """Return the embedding of each photo (B, L, D).

        Args:
            prompt: prompt to call.
            rows: indices of the photos; None: all.
            partners: number that selects the partners; None: partners only if the scope is "pair".
            options: arguments of `images`.
        """
        rows = range(self.count) if rows is None else rows
        arguments = [self.images(prompt, rows, **options)]
        if partners is not None or prompt.scope == "pair":
            arguments.append(self.images(prompt, rows, **{**options, "photos": partners or 100}))
        made = ask(f"{self.name} must return an embedding", prompt, *arguments, kind=PromptEmbedding)
        batch = len(made.values)
        hold(batch in (1, len(rows)), f"{self.name} must return 1 or {len(rows)} embeddings, not {batch}")
        return made.values.expand(len(rows), -1, -1)


def _photo(row: int, *, seed: int) -> Photo:
    """Return a photo of noise that is dark, bright or of all colors, for prompts that depend on brightness."""
    photo = random_photo(SIZES[row % len(SIZES)], seed=seed)
    dark = photo.pixels // 3
    return Photo((dark, 255 - dark, photo.pixels)[row % 3], photo.name)


def _total(values: Tensor) -> Tensor:
    """Return a number that depends on all values."""
    weights = torch.randn(values.shape, generator=torch.Generator().manual_seed(0))
    return (values * weights.to(values)).sum()


def _check_embeddings(name: str, prompt: Prompt, inputs: _Inputs, tolerance: float) -> None:
    """Check shape and values of the embeddings, and that they do not depend on the rest of the batch."""
    whole, spec = inputs.embed(prompt), inputs.backbone.spec
    width, tokens = whole.shape[2], whole.shape[1]
    hold(
        tokens == 0 or width == spec.prompt_width,
        f"the embeddings of {name} must be of the backbone's text width, {spec.prompt_width}, not {width}",
    )
    wanted = torch.float32 if spec.dtype == "float32" else whole.dtype
    hold(whole.dtype == wanted, f"the embeddings of {name} must be in {wanted}, not {whole.dtype}")
    hold(whole.isfinite().all(), f"the embeddings of {name} must be finite")
    hold(equal(inputs.embed(prompt), whole), f"{name} must return the same embeddings each time")
    order = [2, 0, 1]
    hold(close(inputs.embed(prompt, order), whole[order], tolerance), f"the order of a batch changes {name}")
    hold(close(inputs.embed(prompt, [1]), whole[[1]], tolerance), f"the other photos of a batch change {name}")
    hold(equal(inputs.embed(prompt), whole), f"earlier calls change {name}")
    images = inputs.images(prompt, range(3))
    partners = inputs.images(prompt, range(3), photos=100)
    with promising(f"{name} must return its token_vectors, or None"):
        vectors = prompt.token_vectors(images, partners)
        has_shape = vectors is None or (vectors.dim(), len(vectors), vectors.shape[-1]) == (3, 3, spec.prompt_width)
        hold(has_shape, f"token_vectors of {name} must be None or (B, S, D)")


def _check_scope(name: str, prompt: Prompt, inputs: _Inputs) -> None:
    """Check that a prompt depends on nothing but the inputs that its scope names."""
    scope, whole = prompt.scope, inputs.embed(prompt)
    if scope == "category":
        try:
            inputs.embed(prompt, [0], named=False)
        except AssertionError as error:
            refused = isinstance(error.__cause__, SD4MatchError)
            hold(refused, f"{name} has the scope 'category', and must refuse a photo without one by an InputError")
        else:
            raise AssertionError(f"{name} has the scope 'category', and accepts a photo without one")
    else:
        lie = f"the scope of {name} is {scope!r}, and it depends on the category"
        hold(equal(inputs.embed(prompt, turn=1), whole), lie)
        hold(equal(inputs.embed(prompt, named=False), whole), f"{lie}: photos without one differ")
    if scope in ("dataset", "category"):
        hold(
            equal(inputs.embed(prompt, photos=50), whole),
            f"the scope of {name} is {scope!r}, and it depends on the photo",
        )
    if scope != "pair":
        lie = f"the scope of {name} is {scope!r}, and it depends on the partner"
        hold(equal(inputs.embed(prompt, partners=200), inputs.embed(prompt, partners=300)), lie)
        hold(equal(inputs.embed(prompt, partners=200), whole), lie)


def _check_state_dict(name: str, prompt: Prompt, backbone: Backbone) -> None:
    """Check that the state dict holds nothing but learned parameters."""
    for module in prompt.modules():
        frozen = isinstance(module, (Backbone, ImageEncoder, TextEncoder))
        hold(not frozen, f"{name} holds a frozen network, {type(module).__name__}, in its state_dict")
    theirs = {value.data_ptr() for value in (*backbone.parameters(), *backbone.buffers()) if value.numel()}
    shared = [key for key, value in prompt.state_dict().items() if value.numel() and value.data_ptr() in theirs]
    hold(not shared, f"{name} holds {shared[:1]} of the backbone in its state_dict")
    fixed = [key for key, value in prompt.named_parameters() if not value.requires_grad]
    hold(not fixed, f"{name} holds {fixed[:1]}, which is not learned, in its state_dict: a frozen network or a buffer?")


def _check_config(name: str, prompt: Prompt, config: PromptConfig, inputs: _Inputs, tolerance: float) -> None:
    """Check that the embeddings follow from config and state dict, also after saving and loading."""
    check_config(config)
    state = {key: value.detach().clone() for key, value in prompt.state_dict().items()}
    with promising(f"{name} must be built again from its config, and take its state_dict"):
        again = config.build(backbone=inputs.backbone, initialize=not state)
        again.load_state_dict(state)
    with evaluation_mode(prompt), evaluation_mode(again), torch.no_grad():
        hold(
            equal(inputs.embed(again), inputs.embed(prompt)),
            f"the embeddings of {name} must follow from its config and state_dict, and one built from them differs",
        )
        if not learned(again):
            return
        change(again)
        expected = inputs.embed(again)
        with TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore", UnknownWeightsWarning)
            with promising(f"{name} must be saved and loaded"):
                file = save_prompt(again, Path(folder) / "prompt.safetensors", backbone=inputs.backbone)
                loaded = load_prompt(file, backbone=inputs.backbone)
        with evaluation_mode(loaded):
            hold(
                close(inputs.embed(loaded), expected, tolerance),
                f"{name} must give the same embeddings after it was saved and loaded",
            )
    hold(loaded.config == config, f"{name} must have the same config after it was saved and loaded")


def _check_device(name: str, prompt: Prompt, inputs: _Inputs, *, own: bool, tolerance: float) -> None:
    """Check a prompt on another device, built there or copied together with its backbone."""
    config, state = prompt.config, prompt.state_dict()
    if not isinstance(config, PromptConfig) and own:  # the backbone that it was built on is not known
        return

    def there(moved: Any, device: torch.device) -> Mapping[str, Tensor]:
        backbone, alone = moved
        if isinstance(config, PromptConfig):
            alone = config.build(backbone=backbone.to(device))
            alone.load_state_dict(state)
        else:
            backbone.to(device)
        with evaluation_mode(alone.to(device)):
            return {"embeddings": _Inputs(name, backbone, inputs.categories).embed(alone)}

    with evaluation_mode(prompt), torch.no_grad():
        expected = {"embeddings": inputs.embed(prompt)}
    pair = (inputs.backbone, None if isinstance(config, PromptConfig) else prompt)
    check_device(name, pair, there, expected, tolerance=tolerance)
