"""Upload and download of prompt files."""

from __future__ import annotations

import pytest
import torch

from helpers.fake_hub import fake_hub, hub_cache  # noqa: F401 - a fixture
from sd4match.errors import PromptFileError
from sd4match.prompting import SinglePrompt, SinglePromptConfig, from_hub, load_prompt, push_to_hub, save_prompt

pytestmark = pytest.mark.usefixtures("hub_cache")


def test_push_and_download(mini, tmp_path):
    prompt = SinglePrompt(SinglePromptConfig(num_tokens=6), backbone=mini)
    file = save_prompt(prompt, tmp_path / "p.safetensors", backbone=mini, details={"backbone": "mini", "layer": 1})
    with fake_hub() as (address, files):
        assert push_to_hub(file, "me/mine", endpoint=address).endswith("me/mine")
        assert files["me/mine/prompt.safetensors"] == file.read_bytes()
        card = files["me/mine/README.md"].decode()
        got = from_hub("me/mine", endpoint=address)
        with pytest.raises(PromptFileError, match=r"cannot get other\.safetensors of 'me/mine'"):
            from_hub("me/mine", file="other.safetensors", endpoint=address)
    assert torch.equal(load_prompt(got, backbone=mini).token_embeddings, prompt.token_embeddings)
    assert card.startswith("---\nlibrary_name: sd4match\n")
    assert "A single prompt learned on mini" in card
    assert "not Stable" in card
    assert mini.spec.architecture in card
    assert 'SemanticMatcher.from_pretrained("me/mine")' in card


def test_errors_of_the_hub_are_one_line(mini, tmp_path):
    file = save_prompt(
        SinglePrompt(SinglePromptConfig(num_tokens=6), backbone=mini), tmp_path / "p.safetensors", backbone=mini
    )
    with fake_hub() as (address, files):
        for repo in ("me/forbidden", "not a name"):
            with pytest.raises(PromptFileError, match="cannot push") as caught:
                push_to_hub(file, repo, endpoint=address)
            assert "\n" not in str(caught.value)
        assert files == {}
    with pytest.raises(PromptFileError, match="no such prompt file"):
        push_to_hub(tmp_path / "none", "me/mine", endpoint=address)
    with pytest.raises(PromptFileError, match="cannot get"):
        from_hub("me/mine", endpoint=address)  # the server has stopped


def test_what_is_downloaded_is_checked_as_any_prompt_file(tmp_path):
    with fake_hub() as (address, files):
        files["me/mine/prompt.safetensors"] = b"a page that says: log in"
        with pytest.raises(PromptFileError, match=r"prompt\.safetensors is not a safetensors file"):
            from_hub("me/mine", endpoint=address)


def test_names_that_are_none_are_refused(mini, tmp_path):
    file = save_prompt(SinglePrompt(SinglePromptConfig(num_tokens=6), backbone=mini), tmp_path / "p.st", backbone=mini)
    with fake_hub() as (address, files):
        for repo in ("", " ", "a/b/c", "x" * 300, "~nobody", "../x", "\udcff"):
            for call in (lambda name: from_hub(name, endpoint=address),
                         lambda name: push_to_hub(file, name, endpoint=address)):  # fmt: skip
                with pytest.raises(PromptFileError, match=r"repo_id must be a text|cannot get|cannot push") as caught:
                    call(repo)
                assert "\n" not in str(caught.value)
        for names in ({"file": ""}, {"revision": ""}, {"endpoint": " "}):
            with pytest.raises(PromptFileError, match=f"{next(iter(names))} must be a text that is not empty"):
                from_hub("me/mine", **names)
        for path, message in ((tmp_path, "is a folder"), ("", "is empty"), ("~nobody-here/x", "does not exist")):
            with pytest.raises(PromptFileError, match=message):
                push_to_hub(path, "me/mine", endpoint=address)
        assert files == {}
