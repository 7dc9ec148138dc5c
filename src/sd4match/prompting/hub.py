"""Prompt files on the Hugging Face hub."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi, hf_hub_download

from sd4match.errors import PromptFileError
from sd4match.prompting.serialization import PromptInfo, describe_prompt, read_prompt

FILE_NAME = "prompt.safetensors"


def push_to_hub(path: str | Path, repo_id: str, *, private: bool = False, endpoint: str | None = None) -> str:
    """Upload a prompt file with a generated card; the repository is made if there is none.

    Args:
        path: a prompt file.
        repo_id: "user/name".
        private: of a new repository.
        endpoint: of another hub.

    Returns:
        Where it can be looked at.

    Raises:
        PromptFileError: not a prompt file, or the hub refuses.
    """
    info, _ = read_prompt(path)
    api = HfApi(endpoint=endpoint)
    try:
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        with TemporaryDirectory() as folder:
            (Path(folder) / "README.md").write_text(prompt_card(info, repo_id), encoding="utf-8")
            (Path(folder) / FILE_NAME).write_bytes(Path(path).read_bytes())
            api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload a prompt of sd4match")
    except Exception as error:  # the client lets errors of its HTTP library through
        raise PromptFileError(f"cannot push {path} to {repo_id!r}: {_one_line(error)}") from None
    return str(url)


def from_hub(repo_id: str, *, file: str = FILE_NAME, revision: str | None = None, endpoint: str | None = None) -> Path:
    """Download a prompt file into the hub's cache, for `load_prompt`.

    Raises:
        PromptFileError: there is none, or the hub cannot be reached.
    """
    try:
        return Path(hf_hub_download(repo_id, file, revision=revision, endpoint=endpoint))
    except Exception as error:
        raise PromptFileError(f"cannot get {file} of {repo_id!r} from the hub: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def prompt_card(info: PromptInfo, repo_id: str) -> str:
    """A model card of what the file says of itself.

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
        "\n`mini` is the small model of synthetic drawings that the library carries. Scores here are not Stable "
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
from sd4match.prompting.hub import from_hub

matcher = SemanticMatcher.from_preset("{info.config.kind.replace("_", "-")}", prompt=from_hub("{repo_id}"))
```

| | |
| --- | --- |
{rows}
"""
