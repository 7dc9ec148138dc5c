"""Published prompts: files of SD4Match's reference implementation, and the implicit captioner of ODISE.

Pickled tensors are read with `weights_only=True`, so that no code in them is executed.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from torch import Tensor

from sd4match.arguments import check_arguments
from sd4match.errors import ConfigError, InputError, PromptFileError, SD4MatchError, shown
from sd4match.paths import as_path, exists, is_folder, require_file, resolved
from sd4match.prompting.config import (
    ClassPromptConfig,
    ConditionalPromptConfig,
    ImplicitCaptionerConfig,
    PromptConfig,
    SinglePromptConfig,
)
from sd4match.prompting.layout import check_tensors, check_values
from sd4match.prompting.serialization import is_lfs_pointer, read_prompt, why_unreadable
from sd4match.prompting.text import clean_category
from sd4match.registry import image_encoders

SD2_1_ARCHITECTURE = "UNet 320-640-1280-1280, heads [5, 10, 20, 20], latents 4, text 1024 x 23 layers, 49408 tokens"
"""Architecture in the spec of Stable Diffusion 2.1, on which the prompts of SD4Match were learned."""

SD1_ARCHITECTURE = "UNet 320-640-1280-1280, heads 8, latents 4, text 768 x 12 layers, 49408 tokens"
"""Architecture in the spec of Stable Diffusion 1.x, on which the captioner of ODISE was learned."""

_VECTORS = re.compile(r"(Single|Class)_(?P<data>.+)_sd2-1_(?:TokenEmbeds(?P<tokens>[0-9]+)|(?P<hidden>HiddenState))$")
_CPM = re.compile(
    r"CPM_(?P<data>.+)_sd2-1_(?P<on>Pair|Img)-(?P<encoder>DINO|CLIP)-(?P<features>Feat|Head)-G(?P<globals>[0-9]+)-C(?P<tokens>[0-9]+)$"
)
_NAMES = (
    "Single_DATA_sd2-1_TokenEmbeds75, Class_DATA_sd2-1_HiddenState, CPM_DATA_sd2-1_Pair-DINO-Feat-G25-C50 and the like"
)

_SD2_1_SIZES = {"D": 1024, "L": 77}
_SD1_SIZES = {"D": 768, "L": 77, "E": 768}
_ENCODER_SIZES = {"DINO": {"P": 256, "Feat": 768, "Head": 768}, "CLIP": {"P": 256, "Feat": 1024, "Head": 768}}
"""Number of patches and features of the image encoders of published prompts, by their names in the reference."""
LARGEST_CHECKPOINT = 16 << 30
"""Largest published file, in bytes, that is read."""


@dataclass(frozen=True)
class PublishedPrompt:
    """Published prompt with the config and the tensors of a prompt file."""

    config: PromptConfig
    tensors: Mapping[str, Tensor]
    architecture: str
    details: Mapping[str, Any]


@check_arguments
def read_published(path: str | Path) -> PublishedPrompt:
    """Read a folder of the reference implementation, or a checkpoint of ODISE.

    Args:
        path: folder whose name gives the config, with `caption.pt` or `ckpt.pt` in it; or a checkpoint file of ODISE.

    Raises:
        PromptFileError: the name is not known, a file is missing or unsafe, or its tensors do not fit the name.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as root:
    ...     folder = Path(root) / "Single_SPair_sd2-1_TokenEmbeds75"
    ...     folder.mkdir()
    ...     torch.save({"all": torch.zeros(1, 77, 1024)}, folder / "caption.pt")
    ...     published = read_published(folder)
    >>> published.config.num_tokens, published.tensors["token_embeddings"].shape
    (75, torch.Size([75, 1024]))
    """
    path = as_path(path, what="published prompt", error=PromptFileError)
    if not exists(path):
        raise PromptFileError(f"no such folder: {path}")
    if not is_folder(path):
        return _read_odise(require_file(path, what="checkpoint of ODISE", error=PromptFileError))
    name = resolved(path).name
    if match := _VECTORS.match(name):
        return _read_vectors(path / "caption.pt", match)
    if match := _CPM.match(name):
        return _read_cpm(path / "ckpt.pt", match)
    raise PromptFileError(f"the folder's name {name!r} does not tell the config; expected {_NAMES}")


def files_of(path: Path) -> tuple[Path, ...]:
    """Return the files that `read_published` may read at a path.

    Args:
        path: folder or file.
    """
    return (path, path / "caption.pt", path / "ckpt.pt")


def is_converted(path: Path) -> bool:
    """Return whether a file is a prompt file that was converted from a published prompt.

    Args:
        path: any file.
    """
    try:
        info, _ = read_prompt(path)
    except SD4MatchError:
        return False
    return "origin" in info.details and info.fingerprint == "unknown"


def _details(match: re.Match[str]) -> dict[str, Any]:
    return {
        "origin": match.string, "data": {"kind": match["data"]}, "layer": 1, "backbone": "sd2-1",
        "training_timestep": 261, "evaluation_timestep": 50,
    }  # fmt: skip


def _read_vectors(file: Path, match: re.Match[str]) -> PublishedPrompt:
    """Read `{name: (1, L, D)}`: the whole input of the text transformer, BOS and EOS included, or its whole output."""
    content = _check_all(_load(file), file)
    if not content:
        raise PromptFileError(f"{file} must hold {{name: tensor (1, L, D)}}, but it holds nothing")
    for name, value in content.items():
        if value.ndim != 3 or value.shape[0] != 1:
            raise PromptFileError(
                f"{file} must hold {{name: tensor (1, L, D)}}, but {shown(name)} is not: it is {tuple(value.shape)}"
            )
        try:
            clean_category(name)
        except InputError as error:
            raise PromptFileError(f"{file} has a name that is no category: {error}") from None
    hidden = match["hidden"] is not None
    whole = {name: value[0].float() for name, value in content.items()}
    length = next(iter(whole.values())).shape[0]
    num_tokens = length - 2 if hidden else int(match["tokens"])
    if not 1 <= num_tokens <= length - 2:
        raise PromptFileError(f"{file} has {length} text tokens, into which {num_tokens} learned ones do not fit")
    for name, value in whole.items():
        if len(value) != _SD2_1_SIZES["L"]:
            raise PromptFileError(f"{file}: {shown(name)} has {len(value)} text tokens; Stable Diffusion 2.1 has 77")
    vectors = {name: value if hidden else value[1 : num_tokens + 1].clone() for name, value in whole.items()}
    space: Literal["token", "hidden"] = "hidden" if hidden else "token"
    field = "hidden_states" if hidden else "token_embeddings"
    if match[1] == "Single":
        if len(vectors) != 1:
            raise PromptFileError(f"{file} holds {len(vectors)} prompts; a folder named Single has one")
        (only,) = vectors.values()
        single = SinglePromptConfig(num_tokens=num_tokens, space=space)
        return _published(file, single, {field: only}, _details(match))
    categories = tuple(vectors)
    config = ClassPromptConfig(num_tokens=num_tokens, space=space, categories=categories)
    tensors = {f"{field}.{row}": vectors[name] for row, name in enumerate(categories)}
    return _published(file, config, tensors, {**_details(match), "categories": list(categories)})


def _published(
    file: Path, config: PromptConfig, tensors: Mapping[str, Tensor], details: Mapping[str, Any], **sizes: int
) -> PublishedPrompt:
    """Return a prompt of SD4Match whose tensors fit Stable Diffusion 2.1."""
    check_tensors(tensors, config, name=str(file), **_SD2_1_SIZES, **sizes)
    return PublishedPrompt(config, tensors, SD2_1_ARCHITECTURE, details)


def _read_cpm(file: Path, match: re.Match[str]) -> PublishedPrompt:
    """Read a state dict of the reference's CPM, without the buffers of its text model."""
    buffers = "text_model_embeddings."
    content = {name: value for name, value in _load(file).items() if not str(name).startswith(buffers)}
    state = _check_all(content, file)
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
        raise PromptFileError(f"{file} does not hold what {match.string!r} promises: {', '.join(wrong[:5])[:300]}")
    tensors = {ours[name]: _without_batch(value, file=file, name=ours[name]) for name, value in state.items()}
    try:
        config = ConditionalPromptConfig(
            image_encoder=image_encoders.parse("dinov2" if match["encoder"] == "DINO" else "clip"),
            condition_on="pair" if match["on"] == "Pair" else "image",
            features="local" if match["features"] == "Feat" else "global",
            num_global_tokens=int(match["globals"]),
            num_tokens=int(match["tokens"]),
            mix_patches="patch_linear.weight" in tensors,
        )
    except ConfigError as error:
        raise PromptFileError(f"the name {match.string!r} describes no prompt: {error}") from None
    for name, count in (
        ("global_embeddings", config.num_global_tokens),
        ("alpha", config.num_tokens),
        ("positions", config.num_tokens),
    ):
        if name in tensors and tensors[name].shape[0] != count:
            raise PromptFileError(f"{file}: {name} has {tensors[name].shape[0]} tokens; {match.string!r} says {count}")
    encoder = _ENCODER_SIZES[match["encoder"]]
    photos = 2 if config.condition_on == "pair" else 1
    return _published(file, config, tensors, _details(match), P=encoder["P"], E=photos * encoder[match["features"]])


def _read_odise(file: Path) -> PublishedPrompt:
    """Read the implicit captioner from a checkpoint of any nesting, without its time-embedding term."""
    content = _load(file)
    state = content.get("model", content)
    if not isinstance(state, Mapping):
        raise PromptFileError(f"{file} holds no state dict: its 'model' is {type(state).__name__}")
    ours = {
        "alpha_cond": "alpha",
        "clip_project.positional_embedding": "positions",
        "clip_project.linear.weight": "linear.weight",
        "clip_project.linear.bias": "linear.bias",
    }  # fmt: skip
    tensors = {}
    for theirs, own in ours.items():
        found = [value for name, value in state.items() if name == theirs or str(name).endswith(f".{theirs}")]
        if len(found) != 1:
            raise PromptFileError(f"{file} is not a checkpoint of ODISE: {len(found)} tensors named {theirs!r}")
        _check_value(found[0], file=file, name=theirs)
        tensors[own] = _without_batch(found[0], file=file, name=own)
    details = {"origin": "ODISE, without its time-embedding term", "layer": None, "backbone": "sd1"}
    config = ImplicitCaptionerConfig()
    check_tensors(tensors, config, name=str(file), **_SD1_SIZES)
    return PublishedPrompt(config, tensors, SD1_ARCHITECTURE, details)


def _without_batch(value: Tensor, *, file: Path, name: str) -> Tensor:
    """Return a tensor in float32, without the batch dimension of vectors (1, S, D)."""
    vectors = name in ("global_embeddings", "positions", "alpha")
    if vectors and value.ndim == 3:
        if value.shape[0] != 1:
            raise PromptFileError(f"{file} holds a batch of {value.shape[0]} prompts in {name}; one is expected")
        value = value[0]
    if vectors and value.ndim != 2:
        raise PromptFileError(f"{file}: {name} must be (1, S, D) or (S, D), not {tuple(value.shape)}")
    return value.float().clone()


def _check_all(content: Mapping[Any, Any], file: Path) -> dict[str, Tensor]:
    """Return the content of a file after a check that it is tensors by name."""
    for name, value in content.items():
        if not isinstance(name, str):
            raise PromptFileError(f"{file} has the name {shown(name)}, which is no text")
        _check_value(value, file=file, name=name)
    return dict(content)


def _check_value(value: object, *, file: Path, name: str) -> None:
    if not isinstance(value, Tensor):
        raise PromptFileError(f"{file} must hold tensors, but {shown(name)} is not: it is {type(value).__name__}")
    check_values(value, name=f"{file}: {shown(name)}")


def _load(file: Path) -> dict[Any, Any]:
    """Return the dict in a file of `torch.save`; no code in it is executed."""
    size = require_file(file, what="file", error=PromptFileError).stat().st_size
    if size > LARGEST_CHECKPOINT:
        raise PromptFileError(
            f"{file} is too large: it has {size:,} bytes, and at most {LARGEST_CHECKPOINT:,} are read"
        )
    try:
        if zipfile.is_zipfile(file):
            _check_stored(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about an unusual pickle protocol
            content = torch.load(file, map_location="cpu", weights_only=True)
    except PromptFileError:
        raise
    except Exception as error:  # zipfile, pickle and torch raise many types of errors for damaged archives
        if isinstance(error, UnpicklingError) and not is_lfs_pointer(file):
            raise PromptFileError(
                f"{file} is damaged or holds more than tensors, so it was not opened: a published prompt is a dict of "
                "tensors, as torch.save writes it"
            ) from None
        raise PromptFileError(f"cannot read {file}: {why_unreadable(file, error)}") from None
    if not isinstance(content, dict):
        raise PromptFileError(f"{file} holds {type(content).__name__}; a published prompt is a dict of tensors")
    return content


def _check_stored(file: Path) -> None:
    """Check that a zip archive is not compressed: torch.save stores, and a bomb expands to more than the file holds."""
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED or member.file_size > member.compress_size:
                raise PromptFileError(f"{file} is compressed, which torch.save never writes: it was not opened")
