"""Prompt files on the Hugging Face hub."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi, hf_hub_download

from sd4match.errors import PromptFileError, shown
from sd4match.paths import as_path
from sd4match.prompting.serialization import PromptInfo, describe_prompt, read_prompt

FILE_NAME = "prompt.safetensors"


def push_to_hub(path: str | Path, repo_id: str, *, private: bool = False, endpoint: str | None = None) -> str:
    """Upload a prompt file with a generated model card, to a repository that is created if it does not exist.

    Args:
        path: prompt file.
        repo_id: "user/name".
        private: whether a new repository is private.
        endpoint: address of the hub; None: the default one.

    Returns:
        The address of the repository.

    Raises:
        PromptFileError: the file is no prompt file, `repo_id` is no name, or the hub refuses it.
    """
    path = as_path(path, what="prompt file", error=PromptFileError)
    info, _ = read_prompt(path)
    _check_names(repo_id=repo_id, endpoint=endpoint)
    api = HfApi(endpoint=endpoint)
    try:
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        with TemporaryDirectory() as folder:
            (Path(folder) / "README.md").write_text(prompt_card(info, repo_id), encoding="utf-8")
            (Path(folder) / FILE_NAME).write_bytes(path.read_bytes())
            api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload a prompt of sd4match")
    except Exception as error:  # the client does not wrap errors of its HTTP library
        raise PromptFileError(f"cannot push {path} to {shown(repo_id)}: {_one_line(error)}") from None
    return str(url)


def from_hub(repo_id: str, *, file: str = FILE_NAME, revision: str | None = None, endpoint: str | None = None) -> Path:
    """Download a prompt file into the cache of the hub's client.

    Args:
        repo_id: "user/name".
        file: name of the prompt file in the repository.
        revision: branch, tag or commit; None: the default branch.
        endpoint: address of the hub; None: the default one.

    Returns:
        The path of the downloaded file, for `load_prompt`.

    Raises:
        PromptFileError: a name is empty, there is no such file, it is no prompt file, or the hub cannot be reached.
    """
    _check_names(repo_id=repo_id, file=file, revision=revision, endpoint=endpoint)
    try:
        path = Path(hf_hub_download(repo_id, file, revision=revision, endpoint=endpoint))
    except Exception as error:
        raise PromptFileError(f"cannot get {file[:80]} of {shown(repo_id)} from the hub: {_one_line(error)}") from None
    read_prompt(path)
    return path


def _check_names(**names: object) -> None:
    for name, value in names.items():
        optional = name in ("revision", "endpoint")
        if not (optional and value is None) and not (isinstance(value, str) and value.strip()):
            raise PromptFileError(f"{name} must be a text that is not empty, not {shown(value)}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def prompt_card(info: PromptInfo, repo_id: str) -> str:
    """Return a model card (Markdown) with the metadata of a prompt file.

    Args:
        info: metadata from `read_prompt`.
        repo_id: "user/name".

    >>> from sd4match.prompting.config import SinglePromptConfig
    >>> info = PromptInfo(SinglePromptConfig(), "UNet", "unknown", "0.1.0", {"backbone": "mini"})
    >>> "learned on mini" in prompt_card(info, "me/mine")
    True
    """
    name = info.details.get("backbone", "an unnamed backbone")
    rows = "\n".join(
        f"| {key} | {value if isinstance(value, str) else json.dumps(value)} |"
        for key, value in describe_prompt(info).items()
        if key != "fingerprint"
    )
    toy = (
        "\n`mini` is the small model that sd4match contains, trained on synthetic drawings. Its scores are not Stable "
        "Diffusion's.\n"
        if name == "mini"
        else ""
    )
    return f"""---
library_name: sd4match
tags: [semantic-correspondence, prompt, sd4match]
---

# A {info.config.kind} prompt learned on {name}

A learned prompt for semantic matching with a frozen diffusion model (SD4Match, arXiv 2310.17569).
{toy}
```python
from sd4match import SemanticMatcher
from sd4match.prompting import from_hub

matcher = SemanticMatcher.from_preset("{info.config.kind.replace("_", "-")}", prompt=from_hub("{repo_id}"))
```

| | |
| --- | --- |
{rows}
"""
