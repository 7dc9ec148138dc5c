"""Damaged prompt files, and damaged prompts as other projects publish them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from helpers.prompts import class_prompt, fake_backbone, single_prompt
from robustness.cases import Case, input_is_ready, run_command
from robustness.damage import binary_damages, json_text, tensor_damages, value_damages
from sd4match.io.files import read_safetensors, to_safetensors
from sd4match.prompting import load_prompt, save_prompt
from sd4match.prompting.serialization import UnknownWeightsWarning
from sd4match.structures.images import ImageBatch

GROUP = "prompt files"


def _embedding(path: Path) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownWeightsWarning)  # a fake backbone has no known weights
        return _load_and_embed(path)


def _load_and_embed(path: Path) -> Tensor:
    return load_prompt(path, backbone=fake_backbone())(ImageBatch({}, ("cat",))).values.detach()


def cases(base: Path) -> Iterator[Case]:
    """Yield damages of the file, of its metadata and of its tensors."""
    for kind, prompt in (
        ("single", single_prompt(num_tokens=3)),
        ("class", class_prompt(num_tokens=2, categories=("cat", "dog"))),
    ):
        file = save_prompt(prompt, base / f"{kind}.safetensors", backbone=fake_backbone(), details={"layer": None})
        right = _embedding(file)
        content = file.read_bytes()
        tensors, metadata = read_safetensors(file)

        def case(name: str, content: bytes, *, kind: str = kind, right: Tensor = right, differ: bool = False) -> Case:
            def act(folder: Path) -> Tensor:
                path = folder / "learned.safetensors"
                path.write_bytes(content)
                input_is_ready()
                return _embedding(path)

            return Case(GROUP, f"{kind}: {name}", act, ("learned.safetensors",), right=right, may_differ=differ)

        for name, damaged in binary_damages(content):
            yield case(name, damaged)
        for key in metadata:
            without = {other: value for other, value in metadata.items() if other != key}
            yield case(f"metadata without {key}", to_safetensors(tensors, without))
            for text in ("", "x", "5", "null", "[]", "{}", "[" * 50_000):
                changed = to_safetensors(tensors, metadata | {key: text})
                harmless = key in ("architecture", "fingerprint", "library_version") or (key == "details")
                yield case(f"metadata {key} = {text[:8]!r}", changed, differ=harmless and text in ("x", "5", "{}"))
        for name, value in value_damages(json.loads(metadata["config"])):
            changed = to_safetensors(tensors, metadata | {"config": json_text(value)})
            # what only the training or a missing category reads does not change the embedding; other text is legitimate
            yield case(f"config: {name}", changed)
        for name, other in tensor_damages(tensors, list(tensors)):
            yield case(name, to_safetensors(other, metadata))


def published_cases(base: Path) -> Iterator[Case]:
    """Yield damages of the three forms in which prompts are published."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    single = {"spair": drawn(1, 77, 1024)}
    classes = {"cat": drawn(1, 77, 1024), "dog": drawn(1, 77, 1024)}
    cpm = {
        "global_embeds": drawn(1, 25, 1024), "positional_embedding": drawn(1, 50, 1024),
        "alpha_cond": drawn(1, 50, 1024),
        "linear_C.weight": drawn(1024, 1536), "linear_C.bias": drawn(1024), "linear_N.weight": drawn(256, 256),
        "linear_N.bias": drawn(256),
    }  # fmt: skip
    odise = {
        "alpha_cond": drawn(77, 768), "clip_project.positional_embedding": drawn(77, 768),
        "clip_project.linear.weight": drawn(768, 768), "clip_project.linear.bias": drawn(768),
    }  # fmt: skip
    for place, state in (
        ("Single_SPair_sd2-1_TokenEmbeds75/caption.pt", single),
        ("Single_SPair_sd2-1_HiddenState/caption.pt", single),
        ("Class_SPair_sd2-1_TokenEmbeds75/caption.pt", classes),
        ("CPM_SPair_sd2-1_Pair-DINO-Feat-G25-C50/ckpt.pt", cpm),
        ("odise.pt", odise),
    ):
        for name, content in _published_damages(base, state):
            # a Single prompt has one name, whatever it is; ODISE's names may have a prefix
            differ = name.startswith(("rename", "all names")) and ("Single" in place or "odise" in place)
            yield _published_case(f"{place}: {name}", place, content, differ=differ or _is_harmless(name, place))
    for folder in ("Single_SPair_sd2-1_TokenEmbeds99", "Single_SPair_sd2-1_TokenEmbeds0", "Something", "Single"):
        yield _published_case(f"folder {folder}", f"{folder}/caption.pt", _pickled(base, single))


def _is_harmless(name: str, place: str) -> bool:
    """Return whether a damage leaves a prompt of another form: fewer classes or tokens, or a part that is not read."""
    return (
        (name.startswith(("drop", "rename", "all names")) and place.startswith("Class"))
        or ("row" in name and "HiddenState" in place and "Single" in place)
        or (name == "an empty name" and place == "odise.pt")
        or (name.startswith("one dimension more") and place == "odise.pt")  # as the reference's files have it
        or (name == "surplus tensor" and place == "odise.pt")
        or (name.startswith(("one row less", "one row more")) and "TokenEmbeds" in place and "Class" not in place)
    )


def _published_damages(base: Path, state: dict[str, Tensor]) -> Iterator[tuple[str, bytes]]:
    first = next(iter(state))
    value = state[first]
    others: dict[str, object] = {
        "no batch": value[:0], "no width": value[..., :0], "complex": value.to(torch.complex64), "0-d": value.sum(),
        "sparse": value.to_sparse(), "meta": value.to("meta"),
        "five": value[None].expand(5, *value.shape).flatten(0, 1),
        "text": "x", "a list": [1.0], "None": None, "a mapping": {"a": 1},
        "quantized": torch.quantize_per_tensor(value, 0.1, 0, torch.qint8), "narrower": value[..., :-1].clone(),
    }  # fmt: skip
    for name, tensors in tensor_damages(state, list(state)):
        yield name, _pickled(base, tensors)
    for name, other in others.items():
        yield f"{name} for {first}", _pickled(base, state | {first: other})
    yield "names that are numbers", _pickled(base, dict(enumerate(state.values())))
    yield "an empty name", _pickled(base, {"": value} | state)
    for content in (value, [1, 2], 5, None, "prompt", {}):
        yield f"{type(content).__name__} for all", _pickled(base, content)
    whole = _pickled(base, state)
    for name, damaged in binary_damages(whole):
        yield name, damaged
    for number in range(1, 12):
        yield f"cut at {number} of 12", whole[: len(whole) * number // 12]


def _pickled(base: Path, content: object) -> bytes:
    torch.save(content, base / "content.pt")
    return (base / "content.pt").read_bytes()


def _published_case(name: str, place: str, content: bytes, *, differ: bool = False) -> Case:
    path = Path(place)

    def act(folder: Path) -> str:
        file = folder / path
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        input_is_ready()
        published = file if path.parent == Path() else file.parent
        return run_command("prompts", "convert", published, "--output", folder / "out.safetensors")

    return Case("published prompts", name, act, (path.name, path.parts[0]), may_differ=differ)
