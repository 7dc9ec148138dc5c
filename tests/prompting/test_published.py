"""The reference's files, ODISE's tensors, and the way to diffusers' textual inversion."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from sd4match.backbones.stable_diffusion import StableDiffusionBackbone
from sd4match.cli.app import app
from sd4match.data.collate import make_images
from sd4match.errors import InputError, PromptFileError, PromptMismatchError
from sd4match.prompting.captioner import ImplicitCaptioner
from sd4match.prompting.conditional import ConditionalPrompt
from sd4match.prompting.learned import ClassPrompt, SinglePrompt
from sd4match.prompting.pairing import wanted_views
from sd4match.prompting.published import SD2_1_ARCHITECTURE, read_published
from sd4match.prompting.serialization import PromptInfo, UnknownWeightsWarning, load_prompt, write_prompt
from sd4match.prompting.textual_inversion import export_textual_inversion
from sd4match.structures.images import ImageBatch
from sd4match.structures.tensors import ImageFeatures
from sd4match.testing import random_photo

WIDTH = 1024


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A tiny model whose text encoder is as wide as Stable Diffusion 2.1's: folder and backbone."""
    from helpers.model_folders import write_random_model

    folder = write_random_model(tmp_path_factory.mktemp("models") / "wide", width=WIDTH)
    return folder, StableDiffusionBackbone.from_folder(str(folder))


def whole_input(text, vectors):
    """What the reference stores: BOS and EOS included, positions included."""
    frame = text.embed(text.frame_ids(len(vectors))[None])
    return torch.cat([frame[:, :1], vectors[None], frame[:, len(vectors) + 1 :]], dim=1)


def reference_folder(tmp_path, name, file, content):
    folder = tmp_path / name
    folder.mkdir()
    torch.save(content, folder / file)
    return folder


def converted(folder, model, tmp_path):
    """Through the command line and back into a provider."""
    out = tmp_path / "converted.safetensors"
    result = CliRunner().invoke(
        app, ["prompts", "convert", str(folder), "--output", str(out), "--backbone", str(model[0])]
    )
    assert result.exception is None, result.exception
    with pytest.warns(UnknownWeightsWarning):
        return load_prompt(out, backbone=model[1])


def test_a_single_gives_the_embedding_of_the_reference(wide, tmp_path):
    text = wide[1].text
    stored = whole_input(text, torch.randn(75, WIDTH))
    folder = reference_folder(tmp_path, "Single_spair_sd2-1_TokenEmbeds75", "caption.pt", {"spair": stored})
    provider = converted(folder, wide, tmp_path)
    assert torch.equal(provider.token_embeddings, stored[0, 1:76])
    torch.testing.assert_close(provider(ImageBatch({}, (None,))).values, text.transform(stored), atol=1e-5, rtol=1e-5)


def test_a_class_folder_knows_its_categories(wide, tmp_path):
    text = wide[1].text
    stored = {name: whole_input(text, torch.randn(75, WIDTH)) for name in ("aeroplane", "tvmonitor")}
    folder = reference_folder(tmp_path, "Class_spair_sd2-1_TokenEmbeds75", "caption.pt", stored)
    provider = converted(folder, wide, tmp_path)
    values = provider(ImageBatch({}, ("tvmonitor", "aeroplane"))).values
    expected = text.transform(torch.cat([stored["tvmonitor"], stored["aeroplane"]]))
    torch.testing.assert_close(values, expected, atol=1e-5, rtol=1e-5)


def test_hidden_states_are_the_embedding(wide, tmp_path):
    stored = torch.randn(1, 77, WIDTH)
    folder = reference_folder(tmp_path, "Single_pfpascal_sd2-1_HiddenState", "caption.pt", {"pfpascal": stored})
    assert torch.equal(converted(folder, wide, tmp_path)(ImageBatch({}, (None,))).values, stored)


def cpm_state(kind):
    linear = {"Pair-DINO-Feat": 1536, "Pair-DINO-Head": 1536, "Img-DINO-Feat": 768, "Img-DINO-Head": 768}[kind]
    state = {
        "global_embeds": torch.randn(1, 25, WIDTH), "positional_embedding": torch.randn(1, 50, WIDTH),
        "alpha_cond": torch.randn(1, 50, WIDTH), "text_model_embeddings.position_ids": torch.arange(77)[None],
    }  # fmt: skip
    name = "linear_C" if kind == "Pair-DINO-Feat" else "linear"
    state |= {f"{name}.weight": torch.randn(WIDTH, linear) / 40, f"{name}.bias": torch.randn(WIDTH)}
    if kind == "Pair-DINO-Feat":
        state |= {"linear_N.weight": torch.randn(256, 256) / 16, "linear_N.bias": torch.randn(256)}
    return state


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    """A DINOv2 folder of the real widths and 256 patches, one layer deep."""
    from transformers import Dinov2Config, Dinov2Model

    folder = tmp_path_factory.mktemp("dino") / "dinov2-base"
    torch.manual_seed(0)
    Dinov2Model(
        Dinov2Config(hidden_size=768, num_hidden_layers=1, num_attention_heads=12, patch_size=14)
    ).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["Pair-DINO-Feat", "Pair-DINO-Head", "Img-DINO-Feat", "Img-DINO-Head"])
def test_cpm_gives_the_tokens_of_the_reference(wide, dinov2, tmp_path, kind):
    """Against the reference's arithmetic (FACTS 1.6, 1.13), written out on its own key names."""
    state = cpm_state(kind)
    folder = reference_folder(tmp_path, f"CPM_spair_sd2-1_{kind}-G25-C50", "ckpt.pt", state)
    published = read_published(folder)
    file = tmp_path / "cpm.safetensors"
    info = PromptInfo(published.config, wide[1].spec.architecture, "unknown", "0", published.details)
    write_prompt(info, published.tensors, file)
    with pytest.warns(UnknownWeightsWarning):
        provider = load_prompt(
            file, backbone=wide[1], settings={"image_encoder": {"kind": "dinov2", "weights": str(dinov2)}}
        )
    assert isinstance(provider, ConditionalPrompt)
    own, partner = (ImageFeatures(torch.randn(2, 256, 768), torch.randn(2, 768)) for _ in range(2))
    pair, local = kind.startswith("Pair"), kind.endswith("Feat")
    seen = [one.local if local else one.pooled for one in ((own, partner) if pair else (own,))]
    name = "linear_C" if kind == "Pair-DINO-Feat" else "linear"
    x = torch.cat(seen, dim=-1) @ state[f"{name}.weight"].T + state[f"{name}.bias"]
    if local:
        if pair:
            x = torch.einsum("qp,bpd->bqd", state["linear_N.weight"], x) + state["linear_N.bias"][None, :, None]
        x = torch.nn.functional.adaptive_max_pool1d(x.transpose(1, 2), 50).transpose(1, 2)
    else:
        x = x[:, None].expand(-1, 50, -1)
    expected = state["alpha_cond"].tanh() * (x + state["positional_embedding"])
    with torch.no_grad():
        found = provider.condition(own, partner if pair else None)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(provider.global_embeddings, state["global_embeds"][0])
    photos = [make_images([random_photo(seed=s)], [None], wanted_views(wide[1], provider)) for s in (0, 1)]
    assert provider(*photos).values.shape == (1, 77, WIDTH)  # online, from any two photos


def test_odise_tensors_become_a_captioner(tmp_path):
    prefix = "backbone.feature_extractor."
    state = {
        f"{prefix}alpha_cond": torch.randn(1, 77, 768),
        f"{prefix}clip_project.positional_embedding": torch.randn(1, 77, 768),
        f"{prefix}clip_project.linear.weight": torch.randn(768, 768),
        f"{prefix}clip_project.linear.bias": torch.randn(768),
        f"{prefix}alpha_cond_time_embed": torch.randn(1280),
        "sem_seg_head.weight": torch.randn(3),
    }  # fmt: skip
    torch.save({"model": state}, tmp_path / "odise.pth")
    published = read_published(tmp_path / "odise.pth")
    assert published.config.kind == "implicit_captioner"
    assert torch.equal(published.tensors["alpha"], state[f"{prefix}alpha_cond"][0])
    assert torch.equal(published.tensors["linear.weight"], state[f"{prefix}clip_project.linear.weight"])
    torch.save({"model": {}}, tmp_path / "other.pth")
    with pytest.raises(PromptFileError, match="0 tensors named 'alpha_cond'"):
        read_published(tmp_path / "other.pth")


class Evil:
    def __reduce__(self):
        return Path.touch, (Path(self.mark),)


def test_a_malicious_pickle_is_refused_and_not_executed(tmp_path):
    Evil.mark = str(tmp_path / "executed")
    folder = reference_folder(tmp_path, "Single_spair_sd2-1_TokenEmbeds75", "caption.pt", {"spair": Evil()})
    plain = tmp_path / "Class_spair_sd2-1_TokenEmbeds75"
    plain.mkdir()
    (plain / "caption.pt").write_bytes(pickle.dumps({"spair": Evil()}))
    for one in (folder, plain):
        with pytest.raises(PromptFileError, match=r"caption\.pt") as caught:
            read_published(one)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()
    torch.load(folder / "caption.pt", weights_only=False)
    assert (tmp_path / "executed").exists()  # the trap was real


def test_folders_that_do_not_fit_their_names(tmp_path):
    with pytest.raises(PromptFileError, match="no such folder"):
        read_published(tmp_path / "nothing")
    cases = {
        "Single_spair_sd2-1": ("caption.pt", {}, "does not tell the settings"),
        "Single_spair_sd2-1_TokenEmbeds75": ("other.pt", {}, r"no such file: .*caption\.pt"),
        "Single_willow_sd2-1_TokenEmbeds75": ("caption.pt", {}, "nothing"),
        "Single_a_sd2-1_TokenEmbeds75": ("caption.pt", {"a": torch.zeros(77, 4)}, "'a' is not"),
        "Single_b_sd2-1_TokenEmbeds75": ("caption.pt", {k: torch.zeros(1, 77, 4) for k in "ab"}, "holds 2 prompts"),
        "Single_c_sd2-1_TokenEmbeds76": ("caption.pt", {"c": torch.zeros(1, 77, 4)}, "do not fit"),
        "Single_d_sd2-1_TokenEmbeds75": ("caption.pt", [torch.zeros(1)], "holds list"),
        "CPM_spair_sd2-1_Pair-DINO-Feat-G25-C50": ("ckpt.pt", cpm_state("Img-DINO-Feat"), "linear.weight"),
        "CPM_spair_sd2-1_Img-DINO-Feat-G25-C20": ("ckpt.pt", cpm_state("Img-DINO-Feat"), "has 50 slots"),
    }
    for name, (file, content, message) in cases.items():
        with pytest.raises(PromptFileError, match=message):
            read_published(reference_folder(tmp_path, name, file, content))
    broken = tmp_path / "Single_e_sd2-1_TokenEmbeds75"
    broken.mkdir()
    (broken / "caption.pt").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(PromptFileError, match=r"caption\.pt"):
        read_published(broken)


def test_without_a_backbone_a_converted_file_is_stable_diffusion_2_1s(mini, tmp_path):
    folder = reference_folder(
        tmp_path, "Single_spair_sd2-1_TokenEmbeds75", "caption.pt", {"spair": torch.zeros(1, 77, WIDTH)}
    )
    out = tmp_path / "p.safetensors"
    assert CliRunner().invoke(app, ["prompts", "convert", str(folder), "--output", str(out)]).exit_code == 0
    with pytest.raises(PromptMismatchError, match=r"320-640-1280-1280.*48-96-128"):
        load_prompt(out, backbone=mini)
    result = CliRunner().invoke(app, ["prompts", "convert", str(folder), "--output", str(out), "--backbone", "mini"])
    assert "width 1024; mini takes 128" in str(result.exception)


def test_the_architecture_of_stable_diffusion_2_1_is_spelled_as_its_folder_would(tmp_path):
    """The line that converted files carry, against `read_spec` on the fields of SD 2.1's own config files."""
    import json

    from sd4match.backbones.layers import read_spec

    fields = {
        "unet": {"block_out_channels": [320, 640, 1280, 1280], "attention_head_dim": [5, 10, 20, 20], "in_channels": 4,
                 "sample_size": 96, "cross_attention_dim": 1024},
        "vae": {"block_out_channels": [128, 256, 512, 512]},
        "text_encoder": {"max_position_embeddings": 77, "num_hidden_layers": 23, "vocab_size": 49408},
    }  # fmt: skip
    for part, content in fields.items():
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps(content))
    assert read_spec(tmp_path, layers=1).architecture == SD2_1_ARCHITECTURE


@pytest.fixture(scope="module")
def pipeline():
    from sd4match.viz.imagine import load_painter

    return lambda: load_painter("mini")


def embedding_of(pipeline, token, file):
    pipeline.load_textual_inversion(str(file))
    return pipeline.encode_prompt(token, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)[0]


@pytest.mark.parametrize("slots", [1, 30, 75])
def test_any_pipeline_reproduces_an_exported_single(mini, pipeline, tmp_path, slots):
    prompt = SinglePrompt(backbone=mini, slots=slots, seed=2)
    nothing = ImageBatch({}, (None,))
    file = export_textual_inversion(prompt, tmp_path / "learned.safetensors", backbone=mini, images=nothing)
    found = embedding_of(pipeline(), "<sd4match>", file)
    torch.testing.assert_close(found, prompt(nothing).values, atol=1e-5, rtol=1e-5)


def test_any_pipeline_reproduces_an_exported_class_and_cpm(mini, pipeline, tmp_path):
    kinds = ClassPrompt(backbone=mini, categories=("fish", "car"), slots=20)
    car = ImageBatch({}, ("car",))
    for word in ("", " ", "__metadata__"):
        with pytest.raises(InputError, match="the new word must be a word"):
            export_textual_inversion(kinds, tmp_path / "no.safetensors", backbone=mini, images=car, token=word)
    file = export_textual_inversion(kinds, tmp_path / "car.safetensors", backbone=mini, images=car, token="<car>")
    torch.testing.assert_close(embedding_of(pipeline(), "<car>", file), kinds(car).values, atol=1e-5, rtol=1e-5)

    cpm = ConditionalPrompt(backbone=mini, image_encoder="backbone")
    pair = [make_images([random_photo(seed=seed)], [None], wanted_views(mini, cpm)) for seed in (0, 1)]
    file = export_textual_inversion(
        cpm, tmp_path / "pair.safetensors", backbone=mini, images=pair[0], partners=pair[1], token="<pair>"
    )
    torch.testing.assert_close(embedding_of(pipeline(), "<pair>", file), cpm(*pair).values, atol=1e-4, rtol=1e-4)


def test_what_cannot_be_exported_says_so(mini, tmp_path):
    nothing = ImageBatch({}, (None,))
    for prompt in (
        SinglePrompt(backbone=mini, space="hidden"),
        ImplicitCaptioner(backbone=mini, image_encoder="backbone"),
    ):
        with pytest.raises(InputError, match=f"{type(prompt).__name__} .* cannot be exported"):
            export_textual_inversion(prompt, tmp_path / "x.st", backbone=mini, images=nothing)
    with pytest.raises(InputError, match="one prompt; 2 photos"):
        export_textual_inversion(
            SinglePrompt(backbone=mini), tmp_path / "x.st", backbone=mini, images=ImageBatch({}, (None, None))
        )
    assert list(tmp_path.iterdir()) == []
