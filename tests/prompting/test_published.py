"""Files of the reference implementation and checkpoints of ODISE."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from helpers.model_folders import write_random_model
from helpers.prompts import photos, photos_for
from sd4match.backbones.config import StableDiffusionConfig
from sd4match.backbones.layers import stable_diffusion_spec
from sd4match.cli.app import app
from sd4match.errors import PromptFileError, PromptMismatchError
from sd4match.prompting import ConditionalPrompt, PromptInfo, load_prompt, read_published
from sd4match.prompting.published import SD2_1_ARCHITECTURE
from sd4match.prompting.serialization import UnknownWeightsWarning, write_prompt
from sd4match.structures.tensors import ImageFeatures

WIDTH = 1024


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Return folder and backbone of a tiny model whose text encoder is as wide as that of Stable Diffusion 2.1."""
    folder = write_random_model(tmp_path_factory.mktemp("models") / "wide", width=WIDTH)
    return folder, StableDiffusionConfig(weights=str(folder)).build()


def whole_input(text, vectors):
    """Return what the reference stores: vectors with BOS, EOS and padding, positions included."""
    template = text.embed(text.template_ids(len(vectors))[None])
    return torch.cat([template[:, :1], vectors[None], template[:, len(vectors) + 1 :]], dim=1)


def published_folder(tmp_path, name, file, content):
    folder = tmp_path / name
    folder.mkdir()
    torch.save(content, folder / file)
    return folder


def converted(folder, model, tmp_path):
    """Convert a folder with the command line and load the file."""
    out = tmp_path / "converted.safetensors"
    result = CliRunner().invoke(
        app, ["prompts", "convert", str(folder), "--output", str(out), "--backbone", str(model[0])]
    )
    assert result.exception is None, result.exception
    with pytest.warns(UnknownWeightsWarning):
        return load_prompt(out, backbone=model[1])


def test_a_single_gives_the_embedding_of_the_reference(wide, tmp_path):
    text = wide[1].text_encoder
    stored = whole_input(text, torch.randn(75, WIDTH))
    folder = published_folder(tmp_path, "Single_spair_sd2-1_TokenEmbeds75", "caption.pt", {"spair": stored})
    prompt = converted(folder, wide, tmp_path)
    assert torch.equal(prompt.token_embeddings, stored[0, 1:76])
    torch.testing.assert_close(prompt(photos(None)).values, text.encode(stored), atol=1e-5, rtol=1e-5)


def test_a_class_folder_gives_the_categories(wide, tmp_path):
    text = wide[1].text_encoder
    stored = {name: whole_input(text, torch.randn(75, WIDTH)) for name in ("aeroplane", "tvmonitor")}
    folder = published_folder(tmp_path, "Class_spair_sd2-1_TokenEmbeds75", "caption.pt", stored)
    prompt = converted(folder, wide, tmp_path)
    values = prompt(photos("tvmonitor", "aeroplane")).values
    expected = text.encode(torch.cat([stored["tvmonitor"], stored["aeroplane"]]))
    torch.testing.assert_close(values, expected, atol=1e-5, rtol=1e-5)


def test_hidden_states_are_the_embedding(wide, tmp_path):
    stored = torch.randn(1, 77, WIDTH)
    folder = published_folder(tmp_path, "Single_pfpascal_sd2-1_HiddenState", "caption.pt", {"pfpascal": stored})
    assert torch.equal(converted(folder, wide, tmp_path)(photos(None)).values, stored)


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
    """Return a DINOv2 folder of the real widths and 256 patches, with one layer."""
    from transformers import Dinov2Config, Dinov2Model

    folder = tmp_path_factory.mktemp("dino") / "dinov2-base"
    torch.manual_seed(0)
    Dinov2Model(
        Dinov2Config(hidden_size=768, num_hidden_layers=1, num_attention_heads=12, patch_size=14)
    ).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["Pair-DINO-Feat", "Pair-DINO-Head", "Img-DINO-Feat", "Img-DINO-Head"])
def test_cpm_gives_the_tokens_of_the_reference(wide, dinov2, tmp_path, kind):
    """Compare with the arithmetic of the reference (FACTS 1.6, 1.13), written with its own names of tensors."""
    state = cpm_state(kind)
    folder = published_folder(tmp_path, f"CPM_spair_sd2-1_{kind}-G25-C50", "ckpt.pt", state)
    published = read_published(folder)
    file = tmp_path / "cpm.safetensors"
    info = PromptInfo(published.config, wide[1].spec.architecture, "unknown", "0", published.details)
    write_prompt(info, published.tensors, file)
    with pytest.warns(UnknownWeightsWarning):
        prompt = load_prompt(
            file, backbone=wide[1], changes={"image_encoder": {"kind": "dinov2", "weights": str(dinov2)}}
        )
    assert isinstance(prompt, ConditionalPrompt)
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
        found = prompt.condition(own, partner if pair else None)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(prompt.global_embeddings, state["global_embeds"][0])
    pair = [photos_for(prompt, [seed], wide[1]) for seed in (0, 1)]
    assert prompt(*pair).values.shape == (1, 77, WIDTH)


def test_a_checkpoint_of_odise_becomes_a_captioner(tmp_path):
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
    folder = published_folder(tmp_path, "Single_spair_sd2-1_TokenEmbeds75", "caption.pt", {"spair": Evil()})
    plain = tmp_path / "Class_spair_sd2-1_TokenEmbeds75"
    plain.mkdir()
    (plain / "caption.pt").write_bytes(pickle.dumps({"spair": Evil()}))
    for published in (folder, plain):
        with pytest.raises(PromptFileError, match=r"caption\.pt") as caught:
            read_published(published)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()
    torch.load(folder / "caption.pt", weights_only=False)
    assert (tmp_path / "executed").exists()  # unsafe loading does execute it


def test_folders_that_do_not_fit_their_names_are_refused(tmp_path):
    with pytest.raises(PromptFileError, match="no such folder"):
        read_published(tmp_path / "nothing")
    cases = {
        "Single_spair_sd2-1": ("caption.pt", {}, "does not tell the config"),
        "Single_spair_sd2-1_TokenEmbeds75": ("other.pt", {}, r"no such file: .*caption\.pt"),
        "Single_willow_sd2-1_TokenEmbeds75": ("caption.pt", {}, "nothing"),
        "Single_a_sd2-1_TokenEmbeds75": ("caption.pt", {"a": torch.zeros(77, 4)}, "'a' is not"),
        "Single_b_sd2-1_TokenEmbeds75": ("caption.pt", {k: torch.zeros(1, 77, 4) for k in "ab"}, "holds 2 prompts"),
        "Single_c_sd2-1_TokenEmbeds76": ("caption.pt", {"c": torch.zeros(1, 77, 4)}, "do not fit"),
        "Single_d_sd2-1_TokenEmbeds75": ("caption.pt", [torch.zeros(1)], "holds list"),
        "CPM_spair_sd2-1_Pair-DINO-Feat-G25-C50": ("ckpt.pt", cpm_state("Img-DINO-Feat"), "linear.weight"),
        "CPM_spair_sd2-1_Img-DINO-Feat-G25-C20": ("ckpt.pt", cpm_state("Img-DINO-Feat"), "has 50 tokens"),
    }
    for name, (file, content, message) in cases.items():
        with pytest.raises(PromptFileError, match=message):
            read_published(published_folder(tmp_path, name, file, content))
    broken = tmp_path / "Single_e_sd2-1_TokenEmbeds75"
    broken.mkdir()
    (broken / "caption.pt").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(PromptFileError, match=r"caption\.pt"):
        read_published(broken)


def test_without_a_backbone_a_converted_file_is_stable_diffusion_2_1s(mini, tmp_path):
    folder = published_folder(
        tmp_path, "Single_spair_sd2-1_TokenEmbeds75", "caption.pt", {"spair": torch.zeros(1, 77, WIDTH)}
    )
    out = tmp_path / "p.safetensors"
    assert CliRunner().invoke(app, ["prompts", "convert", str(folder), "--output", str(out)]).exit_code == 0
    with pytest.raises(PromptMismatchError, match=r"320-640-1280-1280.*48-96-192"):
        load_prompt(out, backbone=mini)
    result = CliRunner().invoke(app, ["prompts", "convert", str(folder), "--output", str(out), "--backbone", "mini"])
    assert "width 1024; mini takes 128" in str(result.exception)


def test_the_architecture_of_stable_diffusion_2_1_is_that_of_its_config_files():
    """Compare the architecture of converted files with the spec of the config files of Stable Diffusion 2.1."""
    fields = {
        "unet": {"block_out_channels": [320, 640, 1280, 1280], "attention_head_dim": [5, 10, 20, 20], "in_channels": 4,
                 "sample_size": 96, "cross_attention_dim": 1024},
        "vae": {"block_out_channels": [128, 256, 512, 512]},
        "text_encoder": {"max_position_embeddings": 77, "num_hidden_layers": 23, "vocab_size": 49408},
    }  # fmt: skip
    spec = stable_diffusion_spec(
        fields, where="sd2-1", layers=1, frame="squash", dtype="float32", image_size=None, cells=None, clean=False
    )
    assert spec.architecture == SD2_1_ARCHITECTURE
