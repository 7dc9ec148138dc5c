"""Published prompts: files of the reference implementation of SD4Match, and the implicit captioner of ODISE.

Pickled tensors are read with `weights_only=True`, so that no code in them is executed.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from torch import Tensor

from sd4match.errors import PromptFileError
from sd4match.prompting.config import (
    ClassPromptConfig,
    ConditionalPromptConfig,
    ImplicitCaptionerConfig,
    PromptConfig,
    SinglePromptConfig,
)
from sd4match.registry import image_encoders

SD2_1_ARCHITECTURE = "UNet 320-640-1280-1280, heads [5, 10, 20, 20], latents 4, text 1024 x 23 layers, 49408 tokens"
"""Architecture in the spec of Stable Diffusion 2.1, on which the prompts of SD4Match were learned."""

SD1_ARCHITECTURE = "UNet 320-640-1280-1280, heads 8, latents 4, text 768 x 12 layers, 49408 tokens"
"""Architecture in the spec of Stable Diffusion 1.x, on which the captioner of ODISE was learned."""

_VECTORS = re.compile(r"(Single|Class)_(?P<data>.+)_sd2-1_(?:TokenEmbeds(?P<tokens>\d+)|(?P<hidden>HiddenState))$")
_CPM = re.compile(
    r"CPM_(?P<data>.+)_sd2-1_(?P<on>Pair|Img)-(?P<encoder>DINO|CLIP)-(?P<features>Feat|Head)-G(?P<globals>\d+)-C(?P<tokens>\d+)$"
)
_NAMES = (
    "Single_DATA_sd2-1_TokenEmbeds75, Class_DATA_sd2-1_HiddenState, CPM_DATA_sd2-1_Pair-DINO-Feat-G25-C50 and the like"
)


@dataclass(frozen=True)
class PublishedPrompt:
    """Published prompt with the config and the tensors of a prompt file."""

    config: PromptConfig
    tensors: Mapping[str, Tensor]
    architecture: str
    details: Mapping[str, Any]


def read_published(path: str | Path) -> PublishedPrompt:
    """Read a folder of the reference implementation, or a checkpoint of ODISE.

    Args:
        path: folder whose name gives the config, with `caption.pt` or `ckpt.pt` in it; or a checkpoint file of ODISE.

    Raises:
        PromptFileError: the name is not known, a file is missing or unsafe, or its tensors do not fit the name.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return _read_odise(path)
    if not path.is_dir():
        raise PromptFileError(f"no such folder: {path}")
    name = path.resolve().name
    if match := _VECTORS.match(name):
        return _read_vectors(path / "caption.pt", match)
    if match := _CPM.match(name):
        return _read_cpm(path / "ckpt.pt", match)
    raise PromptFileError(f"the folder's name {name!r} does not tell the config; expected {_NAMES}")


def _details(match: re.Match[str]) -> dict[str, Any]:
    return {
        "origin": match.string, "data": {"kind": match["data"]}, "layer": 1, "backbone": "sd2-1",
        "training_timestep": 261, "evaluation_timestep": 50,
    }  # fmt: skip


def _read_vectors(file: Path, match: re.Match[str]) -> PublishedPrompt:
    """Read `{name: (1, L, D)}`: the whole input of the text transformer, BOS and EOS included, or its whole output."""
    content = _load(file)
    wrong = [name for name, value in content.items() if not isinstance(value, Tensor) or value.ndim != 3]
    if wrong or not content:
        raise PromptFileError(f"{file} must hold {{name: tensor (1, L, D)}}, but {(wrong or ['nothing'])[0]!r} is not")
    hidden = match["hidden"] is not None
    whole = {name: value[0].float() for name, value in content.items()}
    length = next(iter(whole.values())).shape[0]
    num_tokens = length - 2 if hidden else int(match["tokens"])
    if not 1 <= num_tokens <= length - 2:
        raise PromptFileError(f"{file} has {length} text tokens, into which {num_tokens} learned ones do not fit")
    vectors = {name: value if hidden else value[1 : num_tokens + 1].clone() for name, value in whole.items()}
    space: Literal["token", "hidden"] = "hidden" if hidden else "token"
    field = "hidden_states" if hidden else "token_embeddings"
    if match[1] == "Single":
        if len(vectors) != 1:
            raise PromptFileError(f"{file} holds {len(vectors)} prompts; a folder named Single has one")
        (only,) = vectors.values()
        single = SinglePromptConfig(num_tokens=num_tokens, space=space)
        return PublishedPrompt(single, {field: only}, SD2_1_ARCHITECTURE, _details(match))
    categories = tuple(vectors)
    config = ClassPromptConfig(num_tokens=num_tokens, space=space, categories=categories)
    tensors = {f"{field}.{row}": vectors[name] for row, name in enumerate(categories)}
    return PublishedPrompt(config, tensors, SD2_1_ARCHITECTURE, {**_details(match), "categories": list(categories)})


def _read_cpm(file: Path, match: re.Match[str]) -> PublishedPrompt:
    """Read a state dict of the reference's CPM, without the buffers of its text model."""
    state = {name: value for name, value in _load(file).items() if not name.startswith("text_model_embeddings.")}
    pair_and_local = (match["on"], match["features"]) == ("Pair", "Feat")
    ours = {"global_embeds": "global_embeddings", "positional_embedding": "positions", "alpha_cond": "alpha"}
    linear = (
        {"linear_C": "channel_linear", "linear_N": "patch_linear"} if pair_and_local else {"linear": "channel_linear"}
    )
    if "linear_N.weight" not in state:
        linear.pop("linear_N", None)
    ours |= {f"{theirs}.{name}": f"{own}.{name}" for theirs, own in linear.items() for name in ("weight", "bias")}
    if match["globals"] == "0":
        del ours["global_embeds"]
        state.pop("global_embeds", None)
    if set(state) != set(ours):
        wrong = sorted(set(state) ^ set(ours))
        raise PromptFileError(f"{file} does not hold what {match.string!r} promises: {', '.join(wrong)}")
    tensors = {ours[name]: _without_batch(value, name=ours[name]) for name, value in state.items()}
    config = ConditionalPromptConfig(
        image_encoder=image_encoders.parse("dinov2" if match["encoder"] == "DINO" else "clip"),
        condition_on="pair" if match["on"] == "Pair" else "image",
        features="local" if match["features"] == "Feat" else "global",
        num_global_tokens=int(match["globals"]),
        num_tokens=int(match["tokens"]),
        mix_patches="patch_linear.weight" in tensors,
    )
    for name, count in (
        ("global_embeddings", config.num_global_tokens),
        ("alpha", config.num_tokens),
        ("positions", config.num_tokens),
    ):
        if name in tensors and tensors[name].shape[0] != count:
            raise PromptFileError(f"{file}: {name} has {tensors[name].shape[0]} tokens; {match.string!r} says {count}")
    return PublishedPrompt(config, tensors, SD2_1_ARCHITECTURE, _details(match))


def _read_odise(file: Path) -> PublishedPrompt:
    """Read the implicit captioner from a checkpoint of any nesting, without its time-embedding term."""
    content = _load(file)
    state = content.get("model", content)
    if not isinstance(state, Mapping):
        raise PromptFileError(f"{file} holds no state dict")
    ours = {
        "alpha_cond": "alpha",
        "clip_project.positional_embedding": "positions",
        "clip_project.linear.weight": "linear.weight",
        "clip_project.linear.bias": "linear.bias",
    }  # fmt: skip
    tensors = {}
    for theirs, own in ours.items():
        found = [value for name, value in state.items() if name == theirs or name.endswith(f".{theirs}")]
        if len(found) != 1:
            raise PromptFileError(f"{file} is not a checkpoint of ODISE: {len(found)} tensors named {theirs!r}")
        tensors[own] = _without_batch(found[0], name=own)
    details = {"origin": "ODISE, without its time-embedding term", "layer": None, "backbone": "sd1"}
    return PublishedPrompt(ImplicitCaptionerConfig(), tensors, SD1_ARCHITECTURE, details)


def _without_batch(value: Tensor, *, name: str) -> Tensor:
    """Return (S, D) for vectors (1, S, D), and weights and biases as they are, in float32."""
    vectors = name in ("global_embeddings", "positions", "alpha")
    return (value[0] if vectors and value.ndim == 3 else value).float().clone()


def _load(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise PromptFileError(f"no such file: {file}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about an unusual pickle protocol
            content = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError:
        raise PromptFileError(
            f"{file} holds more than tensors, so it was not opened: a published prompt is a dict of tensors"
        ) from None
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, TypeError, AttributeError) as error:
        raise PromptFileError(f"cannot read {file}: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(content, dict):
        raise PromptFileError(f"{file} holds {type(content).__name__}; a published prompt is a dict of tensors")
    return content
