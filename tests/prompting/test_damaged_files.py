"""Prompt files that are damaged by rule: each is refused in one line that names the file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from inspect import unwrap
from itertools import combinations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, save

from helpers.prompts import fake_backbone, single_prompt
from sd4match.errors import ConfigError, InputError, NonFiniteError, PromptFileError, PromptMismatchError
from sd4match.fingerprints import same_weights, what_differs
from sd4match.prompting import Prompt, load_prompt, read_prompt, save_prompt
from sd4match.prompting.serialization import UnknownWeightsWarning
from sd4match.registry import prompts, register_prompt
from sd4match.structures.tensors import PromptEmbedding

CONFIGS = {
    "single": {"kind": "single", "num_tokens": 3},
    "hidden": {"kind": "single", "num_tokens": 3, "space": "hidden"},
    "class": {"kind": "class", "num_tokens": 3, "categories": ["cat", "car"]},
    "cpm": {
        "kind": "cpm", "image_encoder": {"kind": "backbone", "side": 2}, "num_global_tokens": 2, "num_tokens": 3,
    },
    "captioner": {"kind": "implicit_captioner", "image_encoder": {"kind": "backbone", "side": 2}},
}  # fmt: skip
OTHER_TYPES = (
    torch.int64, torch.int8, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2,
)  # fmt: skip
NO_OBJECTS = ("", "{", "null", "[]", "3", '"x"', "[" * 5000, '{"a":' * 100 + "1" + "}" * 100, '{"a": NaN}',
              '{"a": 1e400}', '{"a": 1, "a": 1}', '{"a": ' + "9" * 4000 + "}")  # fmt: skip
NO_CONFIGS = (
    "{}", '{"kind": 1}', '{"kind": "empty"}', '{"kind": "text"}', '{"kind": "none"}', '{"kind": "of-a-plugin"}',
    '{"kind": "single", "num_tokens": true}', '{"kind": "single", "num_tokens": "3"}', '{"kind": "single", "slots": 3}',
)  # fmt: skip
NO_FINGERPRINTS = ("words", "0.1 nan", "inf", "0.1 0x1", " ", "unknown unknown")
CONFIG_VALUES = (None, [], {}, "other", -1, 2.5, True, {"kind": "backbone", "side": 5000}, {"kind": "nothing"},
                 ["cat", "cat"], ["cat", ""], ["cat", "(G)"], [1, 2], ["cat", "\ud800"])  # fmt: skip
NO_LAYERS = (True, 1.0, {})

Damage = tuple[str, dict[str, torch.Tensor], dict[str, str]]


def damages(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> Iterator[Damage]:
    for name, value in tensors.items():
        for label, replaced in damaged_values(value):
            yield f"{name} {label}", {**tensors, name: replaced}, metadata
        yield f"{name} dropped", {other: v for other, v in tensors.items() if other != name}, metadata
        for renamed in (f"{name}x", f"module.{name}"):
            yield (
                f"{name} renamed",
                {(renamed if other == name else other): v for other, v in tensors.items()},
                metadata,
            )
    for one, two in combinations(tensors, 2):
        if tensors[one].shape != tensors[two].shape:
            yield f"{one} and {two} swapped", {**tensors, one: tensors[two], two: tensors[one]}, metadata
    yield "a surplus tensor", {**tensors, "extra": torch.zeros(1)}, metadata
    yield "no tensors", {}, metadata
    for key, value in metadata.items():
        yield f"{key} dropped", tensors, {other: v for other, v in metadata.items() if other != key}
        yield f"{key} renamed", tensors, {(f"{key}x" if other == key else other): v for other, v in metadata.items()}
        yield f"{key} empty", tensors, {**metadata, key: ""}
        if key in ("config", "details"):
            yield f"{key} truncated", tensors, {**metadata, key: value[:-1]}
    for key in ("format", "format_version", "architecture"):
        for text in ("x", "-1", "1.0", "\n"):
            yield f"{key} {text!r}", tensors, {**metadata, key: text}
    for key in ("config", "details"):
        for text in NO_OBJECTS:
            yield f"{key} {text[:20]}", tensors, {**metadata, key: text}
    for text in NO_CONFIGS:
        yield f"config {text}", tensors, {**metadata, "config": text}
    for text in NO_FINGERPRINTS:
        yield f"fingerprint {text}", tensors, {**metadata, "fingerprint": text}
    for layer in NO_LAYERS:
        yield f"layer {layer}", tensors, {**metadata, "details": json.dumps({"layer": layer})}
    config = json.loads(metadata["config"])
    for field in ("num_tokens", "space", "categories", "image_encoder", "condition_on", "features", "kind"):
        for value in CONFIG_VALUES:
            if field in config and config[field] != value:
                yield f"{field} {value}", tensors, {**metadata, "config": json.dumps({**config, field: value})}


def damaged_values(value: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    for dtype in OTHER_TYPES:
        yield str(dtype), value.abs().clamp(0, 1).to(dtype)
    for bad in (float("nan"), float("inf"), 1e300):  # the last is finite in float64 alone
        replaced = value.double()
        replaced.view(-1)[-1] = bad
        yield str(bad), replaced
    yield "of no rows", value[:0]
    yield "of no columns", value[..., :0]
    yield "of another rank", value[None]
    yield "of rank 0", torch.tensor(1.0)
    yield "repeated", torch.cat([value, value])
    yield "truncated", value[:-1]
    yield "widened", torch.cat([value, value], dim=-1)


@pytest.fixture(scope="module")
def backbone():
    return fake_backbone()


def written(config, backbone, path):
    """Return the tensors and the metadata of the file of a prompt."""
    save_prompt(prompts.parse(config).build(backbone=backbone), path, backbone=backbone, details={"layer": 1})
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
    return load(path.read_bytes()), metadata


@pytest.mark.filterwarnings("ignore::sd4match.prompting.serialization.UnknownWeightsWarning")
@pytest.mark.parametrize("kind", CONFIGS)
def test_each_damage_is_refused_in_one_line_that_names_the_file(backbone, tmp_path, kind):
    tensors, metadata = written(CONFIGS[kind], backbone, tmp_path / "good.safetensors")
    load_prompt(tmp_path / "good.safetensors", backbone=backbone)
    path = tmp_path / "damaged.safetensors"
    faults = []
    for label, values, texts in damages(tensors, metadata):
        if kind == "captioner" and "side" in label:
            continue
        path.write_bytes(save({name: value.contiguous().clone() for name, value in values.items()}, texts))
        try:
            load_prompt(path, backbone=backbone)
        except PromptFileError as error:
            if path.name not in str(error) or "\n" in str(error) or len(str(error)) > 600:
                faults.append((label, str(error)))
        except Exception as error:
            faults.append((label, repr(error)))
        else:
            faults.append((label, "accepted"))
    assert faults == []


def test_bytes_that_are_no_whole_file_are_refused(backbone, tmp_path):
    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    written(CONFIGS["single"], backbone, good)
    content = good.read_bytes()
    torch.save({"token_embeddings": torch.zeros(3, 8)}, tmp_path / "pickle")
    pickled = (tmp_path / "pickle").read_bytes()
    cuts = [content[:length] for length in (0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1)]
    for damaged in (*cuts, content + b"x", content * 2, b"\xff" * 8 + content[8:], pickled, b"text"):
        bad.write_bytes(damaged)
        with pytest.raises(PromptFileError, match=r"bad\.safetensors is not a safetensors file \(."):
            read_prompt(bad)
    bad.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(PromptFileError, match=r"bad\.safetensors .*Git-LFS pointer: fetch the file"):
        read_prompt(bad)
    with bad.open("wb") as file:
        file.truncate(2 << 30)
    with pytest.raises(PromptFileError, match=r"at most 1,073,741,824 are read"):
        read_prompt(bad)


def test_a_path_that_is_no_file_is_named_for_what_it_is(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    cases = {
        tmp_path: "is a folder", tmp_path / "fifo": "is not a regular file", tmp_path / "none": "no such prompt file",
        "": "is empty", " ": "is empty", "a\0b": "null character", "x" * 300: "cannot read the prompt file x",
        "~nobody-here/x": "names a user that does not exist", "emtpy": "did you mean 'empty'",
        "text": "did you mean 'text'",
        None: "must be a path, not None", 5: "must be a path, not 5", b"x": "must be a path",
    }  # fmt: skip
    for path, message in cases.items():
        with pytest.raises(PromptFileError, match=message):
            unwrap(read_prompt)(path)


@pytest.mark.filterwarnings("ignore::sd4match.prompting.serialization.UnknownWeightsWarning")
def test_a_wrong_change_is_an_error_about_the_change(backbone, tmp_path):
    path = tmp_path / "good.safetensors"
    written(CONFIGS["class"], backbone, path)
    cases = {
        "changes must be values by names": (5, "fallback", ["fallback"], {1: 2}),
        "the changes do not fit .*good": ({"fallback": "txet"}, {"fallback": None}, {"unknown": 1}, {"seed": True}),
        "it cannot be changed": ({"kind": "text"}, {"kind": None}),
    }
    for message, wrong in cases.items():
        for changes in wrong:
            with pytest.raises(ConfigError, match=message):
                unwrap(read_prompt)(path, changes=changes)
    with pytest.raises(ConfigError, match="'cat' appears twice"):
        load_prompt(path, backbone=backbone, changes={"categories": ["cat", "cat"]})
    written(CONFIGS["cpm"], backbone, path)
    with pytest.raises(PromptFileError, match=r"patch_linear\.weight must be \(P, P\) with P = 9"):
        load_prompt(path, backbone=backbone, changes={"image_encoder": {"kind": "backbone", "side": 3}})


def test_fingerprints_of_any_length_are_compared():
    assert same_weights("0.1 0.2", "0.1 0.2001")
    for one, two in (("0.1 0.2", "0.1"), ("0.1 0.2", "0.1 0.3"), ("unknown", "unknown"), ("unknown", "0.1")):
        assert not same_weights(one, two)
        assert not same_weights(two, one)
    for wrong in ("words", "", "nan", "0.1 inf"):
        with pytest.raises(InputError, match="a fingerprint is finite numbers"):
            same_weights("0.1", wrong)
    for wrong in ("unet:xyz:1.0", "unet:0a:1,", "unet:0a:1-2", "unet:0a"):
        with pytest.raises(InputError, match="a fingerprint is finite numbers"):
            what_differs(wrong, "0.1")


def test_words_of_fingerprints_are_compared_by_name_config_and_numbers():
    plain = "unet:0a1b:1.5,-2.0 vae:0c:0.5"
    assert same_weights(plain, "unet:0a1b:1.6,-2.1 vae:0c:0.5")
    for other, differs in (
        ("unet:0a1c:1.5,-2.0 vae:0c:0.5", ["unet"]), ("unet:0a1b:1.5,-2.0 vae:0c:1.0", ["vae"]),
        ("unet:0a1c:1.5 vae:0c:1.0", ["unet", "vae"]), ("unet:0a1b:1.5,-2.0", []), ("0.1 0.2", []), ("unknown", []),
    ):  # fmt: skip
        assert not same_weights(plain, other)
        assert what_differs(plain, other) == differs


def test_a_prompt_that_was_learned_on_another_text_encoder_warns(tmp_path):
    one, two, longer = fake_backbone(), fake_backbone(), fake_backbone()
    one.fingerprint, two.fingerprint, longer.fingerprint = "0.1 0.2", "0.1 0.9", "0.1 0.2 0.3"
    path = save_prompt(single_prompt(one, num_tokens=3), tmp_path / "p.safetensors", backbone=one)
    for other in (two, longer):
        with pytest.warns(
            UnknownWeightsWarning, match=r"learned on other \(or unknown\) weights or settings of the same"
        ):
            load_prompt(path, backbone=other)


@pytest.mark.parametrize(
    ("learned", "message"),
    [
        ("0.1 0.2", "the file is of an earlier release, whose fingerprints say less"),
        ("unet:0a:1.0 text_encoder:0b:9.0", "architecture: the weights or settings of text_encoder differ; its scores"),
        ("unknown", "architecture; its scores"),
    ],
)
def test_the_warning_of_other_weights_says_what_differs(tmp_path, learned, message):
    one, other = fake_backbone(), fake_backbone()
    one.fingerprint, other.fingerprint = learned, "unet:0a:1.0 text_encoder:0b:2.0"
    path = save_prompt(single_prompt(one, num_tokens=3), tmp_path / "p.safetensors", backbone=one)
    with pytest.warns(UnknownWeightsWarning, match=message):
        load_prompt(path, backbone=other)


def test_a_prompt_of_another_layer_is_refused(tmp_path):
    backbone, path = fake_backbone(), tmp_path / "p.safetensors"
    backbone.spec = replace(backbone.spec, layer=2)
    written(CONFIGS["single"], backbone, path)  # with layer 1 in its details
    with pytest.raises(PromptMismatchError, match=r"p\.safetensors was learned for layer 1; .* gives layer 2"):
        load_prompt(path, backbone=backbone)


def test_what_is_not_a_learned_prompt_is_not_saved(backbone, tmp_path):
    path = tmp_path / "p.safetensors"
    prompt = single_prompt(backbone, num_tokens=3)
    with pytest.raises(InputError, match="prompt must be a Prompt, not 5"):
        unwrap(save_prompt)(5, path, backbone=backbone)
    with pytest.raises(InputError, match="backbone must be a Backbone, not None"):
        unwrap(save_prompt)(prompt, path, backbone=None)
    for details in ({"score": float("nan")}, {"bytes": b"x"}, {"deep": deep(100)}, {"deep": deep(5000)}):
        with pytest.raises(InputError, match="must be JSON"):
            unwrap(save_prompt)(prompt, path, backbone=backbone, details=details)
    for bad in (float("nan"), float("inf")):
        with torch.no_grad():
            prompt.token_embeddings[1, 1] = bad
        with pytest.raises(NonFiniteError, match="token_embeddings in SinglePrompt are not finite: 1 of 24"):
            save_prompt(prompt, path, backbone=backbone)
    assert not path.exists()


def deep(levels):
    value = {}
    for _ in range(levels):
        value = {"a": value}
    return value


def test_a_prompt_file_replaces_prompt_files_alone(backbone, tmp_path):
    prompt = single_prompt(backbone, num_tokens=3)
    path = save_prompt(prompt, tmp_path / "p.safetensors", backbone=backbone)
    save_prompt(prompt, path, backbone=backbone)
    other = tmp_path / "cat.png"
    other.write_bytes(b"a picture")
    with pytest.raises(PromptFileError, match=r"cat\.png exists and is no prompt file"):
        save_prompt(prompt, other, backbone=backbone)
    assert other.read_bytes() == b"a picture"


def test_prompts_of_plugins_keep_their_types_and_are_checked_too(backbone, tmp_path):
    path = tmp_path / "own.safetensors"
    with prompts.temporarily():

        @register_prompt("counted")
        class Counted(Prompt):
            def __init__(self, *, backbone, rows: int = 2):
                super().__init__()
                if rows > 100:
                    raise RuntimeError("too much\nmemory")
                self.vectors = torch.nn.Parameter(torch.ones(rows, 8))
                self.tied = self.vectors
                self.register_buffer("steps", torch.tensor(3))

            def forward(self, images, partners=None):
                return PromptEmbedding(self.vectors.expand(len(images), -1, -1))

        unnamed = Counted(backbone=backbone)
        unnamed.config = None
        with pytest.raises(InputError, match=r"Counted has no config, .* register_prompt"):
            save_prompt(unnamed, path, backbone=backbone)
        tensors, metadata = written({"kind": "counted"}, backbone, path)
        with pytest.warns(UnknownWeightsWarning):
            assert load_prompt(path, backbone=backbone).steps == 3
        for name, value in (("steps", torch.tensor(3.0)), ("vectors", torch.ones(3, 8))):
            path.write_bytes(save({**tensors, name: value}, metadata))
            with (
                pytest.warns(UnknownWeightsWarning),
                pytest.raises(PromptMismatchError, match=rf"own\.safetensors has {name}"),
            ):
                load_prompt(path, backbone=backbone)
        path.write_bytes(save({**tensors, "vectors": tensors["vectors"] * float("nan")}, metadata))
        with pytest.raises(PromptFileError, match="vectors is not finite"):
            load_prompt(path, backbone=backbone)
        path.write_bytes(save({}, metadata))
        with pytest.raises(PromptFileError, match="holds no tensors"):
            load_prompt(path, backbone=backbone)
        path.write_bytes(save(tensors, {**metadata, "config": '{"kind": "counted", "rows": 101}'}))
        with (
            pytest.warns(UnknownWeightsWarning),
            pytest.raises(PromptFileError, match="cannot be built: too much memory"),
        ):
            load_prompt(path, backbone=backbone)


def test_what_half_precision_holds_is_loaded(backbone, tmp_path):
    path = tmp_path / "p.safetensors"
    tensors, metadata = written(CONFIGS["single"], backbone, path)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        path.write_bytes(save({name: value.to(dtype) for name, value in tensors.items()}, metadata))
        with pytest.warns(UnknownWeightsWarning):
            loaded = load_prompt(path, backbone=backbone)
        assert loaded.token_embeddings.dtype == torch.float32
        assert torch.equal(loaded.token_embeddings, tensors["token_embeddings"].to(dtype).float())
