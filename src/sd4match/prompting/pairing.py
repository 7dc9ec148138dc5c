"""Prompt embeddings and feature maps of pairs, with checks of the results of prompts and backbones."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import get_args

import torch

from sd4match.arguments import check_arguments
from sd4match.checks import check_choice, check_each_finite, check_finite, check_text
from sd4match.errors import ComponentError, InputError, ShapeError
from sd4match.geometry import mask_to_model
from sd4match.interfaces import Backbone, Prepare, Prompt, Scope
from sd4match.interfaces.calls import call_component, check_answer, describe_component
from sd4match.structures.images import ImageBatch as ImageBatch
from sd4match.structures.images import Photo, View
from sd4match.structures.tensors import Encoded, FeatureMap, Sampling
from sd4match.structures.tensors import PromptEmbedding as PromptEmbedding


def prompt_embeddings(prompt: Prompt, images: ImageBatch, partners: ImageBatch | None = None) -> PromptEmbedding:
    """Return the prompt embeddings of photos, (B, L, D), with the checks that all prompts share.

    Args:
        prompt: prompt of any scope.
        images: B photos with the views of the prompt.
        partners: the other photo of each pair, for prompts of scope "pair".

    Raises:
        InputError: the batch is empty, a category is no text or missing where the prompt needs it, or the scope is
            unknown.
        ComponentError: the prompt raises an error of its own, or does not return 1 or B embeddings.
        NonFiniteError: the embedding holds NaN or infinite values.
    """
    name = describe_component("prompt", prompt)
    scope = check_choice(f"scope of {name}", prompt.scope, get_args(Scope))
    for batch in (images, partners):
        if batch is not None:
            _check_categories(name, batch, needed=scope == "category")
    arguments = (images,) if partners is None else (images, partners)
    made = check_answer("prompt", prompt, call_component("prompt", prompt, prompt, *arguments), PromptEmbedding)
    if len(made.values) not in (1, len(images)):
        raise ComponentError(f"{name} must return 1 or {len(images)} embeddings, not {len(made.values)}")
    check_finite(f"the embeddings of {name}", made.values, "its learned tensors or its file are damaged")
    return PromptEmbedding(made.values.expand(len(images), -1, -1))


def _check_categories(name: str, images: ImageBatch, *, needed: bool) -> None:
    """Check the categories of photos; the message names the photo."""
    if len(images) == 0:
        raise InputError("a batch holds one photo or more")
    for row, category in enumerate(images.categories):
        photo = photo_name(images, row)
        if category is not None:
            check_text(f"the category of {photo}", category)
        elif needed:
            raise InputError(f"{name} needs a category, and {photo} has none: say what it shows")


def photo_name(images: ImageBatch, row: int) -> str:
    """Return the name of a photo of a batch, for messages.

    Args:
        images: B photos.
        row: index in the batch.
    """
    return images.photos[row].name if row < len(images.photos) else f"photo {row + 1}"


@check_arguments
def pair_prompts(prompt: Prompt, source: ImageBatch, target: ImageBatch) -> tuple[PromptEmbedding, PromptEmbedding]:
    """Return the prompt embeddings of the sources and of the targets of B pairs, (B, L, D) each.

    A prompt of scope "pair" is called once, with (source, target), and its embedding is that of both photos. A prompt
    of scope "image" is called for each side. Any other prompt is called once for all 2 B photos, so that an embedding
    that photos share is computed once.

    Args:
        prompt: prompt of any scope.
        source: B photos with the views of the prompt.
        target: the other photo of each pair.

    Raises:
        InputError, ComponentError, NonFiniteError: as `prompt_embeddings`.

    >>> from sd4match.prompting import EmptyPrompt
    >>> from sd4match.testing import FakeBackbone, FakeTextEncoder
    >>> prompt = EmptyPrompt(backbone=FakeBackbone(text_encoder=FakeTextEncoder()))
    >>> source, target = pair_prompts(prompt, ImageBatch({}, ("cat",)), ImageBatch({}, ("cat",)))
    >>> source.values.shape
    torch.Size([1, 77, 8])
    """
    if len(source) != len(target):
        raise InputError(f"a pair has a source and a target: not {len(source)} sources and {len(target)} targets")
    if prompt.scope == "pair":
        shared = prompt_embeddings(prompt, source, target)
        return shared, shared
    if prompt.scope == "image":
        return prompt_embeddings(prompt, source), prompt_embeddings(prompt, target)
    values = prompt_embeddings(prompt, source + target).values
    return PromptEmbedding(values[: len(source)]), PromptEmbedding(values[len(source) :])


def preprocessors(backbone: Backbone, prompt: Prompt) -> dict[str, Prepare]:
    """Return the preprocessing functions that the backbone and the prompt need, by name.

    Args:
        backbone: its function is named "backbone".
        prompt: its functions have the names in `prompt.views`.

    >>> from sd4match.prompting import NoPrompt
    >>> from sd4match.testing import FakeBackbone
    >>> list(preprocessors(FakeBackbone(), NoPrompt()))
    ['backbone']
    """
    functions: dict[str, tuple[str, object, Prepare]] = {"backbone": ("backbone", backbone, backbone.prepare)}
    functions |= {name: ("prompt", prompt, function) for name, function in prompt.views.items()}
    return {name: partial(_prepare, *function) for name, function in functions.items()}


def _prepare(role: str, component: object, function: Prepare, photo: Photo) -> View:
    view = check_answer(role, component, call_component(role, component, function, photo), View)
    if view.frame.original_size != photo.size:
        raise ComponentError(
            f"{describe_component(role, component)} must prepare {photo.name} with a frame of its size {photo.size}, "
            f"not {view.frame.original_size}"
        )
    if photo.mask is None or view.mask is not None:
        return view
    return replace(view, mask=mask_to_model(torch.from_numpy(photo.mask), view.frame))


def extract_maps(backbone: Backbone, images: ImageBatch, prompts: PromptEmbedding, sampling: Sampling) -> FeatureMap:
    """Return the feature maps of photos, with the checks that all backbones share.

    Args:
        backbone: backbone.
        images: B photos with the views of the backbone.
        prompts: (B, L, D), or (1, L, D) for all.
        sampling: timestep, ensemble, noise.

    Raises:
        ShapeError: the prompt embeddings have another width than the backbone's.
        ComponentError: the backbone raises an error of its own, or returns maps of other photos or channels.
        NonFiniteError: a feature is NaN or infinite; the message names the photo and the layer, and suggests a remedy.
    """
    name = describe_component("backbone", backbone)
    _check_fit(prompts, backbone, name)
    views = images.view("backbone")
    encoded = call_component("backbone", backbone, backbone.encode, views)
    check_answer("backbone", backbone, encoded, Encoded)
    answer = call_component("backbone", backbone, backbone.extract, encoded, prompts, sampling)
    maps = check_answer("backbone", backbone, answer, FeatureMap)
    if maps.grid.frames != views.frames:
        raise ComponentError(f"{name} must return one map for each of {len(images)} photos, with the photo's frame")
    if maps.values.shape[1] != backbone.spec.channels:
        raise ComponentError(f"{name} must return {backbone.spec.channels} channels, not {maps.values.shape[1]}")
    spec, names = backbone.spec, [photo_name(images, row) for row in range(len(images))]
    where = "" if spec.layer is None else f"at layer {spec.layer}"
    check_each_finite("the features", names, where, maps.values, spec.dtype)
    return maps


def _check_fit(prompts: PromptEmbedding, backbone: Backbone, name: str) -> None:
    """Check the width of prompt embeddings, except for embeddings without tokens.

    Raises:
        ShapeError: the backbone has another width.
    """
    width, (_, tokens, found) = backbone.spec.prompt_width, prompts.values.shape
    if width is not None and tokens and found != width:
        raise ShapeError(f"{name} reads prompt embeddings (B, L, {width}), not (B, {tokens}, {found})")


@check_arguments
def pair_maps(
    backbone: Backbone, prompt: Prompt, source: ImageBatch, target: ImageBatch, sampling: Sampling
) -> tuple[FeatureMap, FeatureMap]:
    """Extract the feature maps of the sources and of the targets of B pairs, in one pass.

    Args:
        backbone: backbone.
        prompt: prompt of any scope.
        source: B photos with the views of backbone and prompt.
        target: the other photo of each pair.
        sampling: noise of the 2 B photos, sources first.

    Raises:
        InputError, ComponentError, NonFiniteError: as `prompt_embeddings` and `extract_maps`. `ShapeError` is an
            `InputError`.

    >>> from sd4match.prompting import EmptyPrompt
    >>> from sd4match.structures.images import Views
    >>> from sd4match.testing import FakeBackbone, FakeTextEncoder, random_photo
    >>> backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    >>> photo = ImageBatch({"backbone": Views.of([backbone.prepare(random_photo())])}, (None,))
    >>> source, target = pair_maps(backbone, EmptyPrompt(backbone=backbone), photo, photo, Sampling(timestep=50))
    >>> source.values.shape
    torch.Size([1, 48, 8, 8])
    """
    embeddings = torch.cat([side.values for side in pair_prompts(prompt, source, target)])
    maps = extract_maps(backbone, source + target, PromptEmbedding(embeddings), sampling)
    return maps[: len(source)], maps[len(source) :]
