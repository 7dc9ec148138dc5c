"""Prompt files on the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import HfApi

from sd4match.errors import PromptFileError, a, shown
from sd4match.io.hub import HubError, NoSuchFileError, download_file, explain
from sd4match.paths import as_path
from sd4match.prompting.serialization import describe_prompt, read_prompt

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

    >>> push_to_hub("single.safetensors", "user/single-spair")  # doctest: +SKIP
    'https://huggingface.co/user/single-spair'
    """
    path = as_path(path, what="prompt file", error=PromptFileError)
    info, _ = read_prompt(path)
    check_names(repo_id=repo_id, endpoint=endpoint)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "README.md").write_bytes(card(describe_prompt(info), repo_id).encode(errors="backslashreplace"))
        (folder / FILE_NAME).write_bytes(path.read_bytes())
        return upload(folder, repo_id, private=private, endpoint=endpoint, what="a prompt")


def upload(folder: Path, repo_id: str, *, private: bool, endpoint: str | None, what: str) -> str:
    """Upload a folder to a repository, which is created if it does not exist.

    Args:
        folder: folder to upload.
        repo_id: "user/name".
        private: whether a new repository is private.
        endpoint: address of the hub; None: the default one.
        what: contents in messages, for example "a prompt".

    Returns:
        The address of the repository.

    Raises:
        PromptFileError: the hub refuses the upload.
    """
    api = HfApi(endpoint=endpoint)
    try:
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=f"Upload {what} of sd4match")
    except Exception as error:  # the client does not wrap errors of its HTTP library
        reason = explain(error, repo_id, endpoint=endpoint).explanation
        raise PromptFileError(f"cannot push {what} to {shown(repo_id)}: {reason}") from None
    return str(url)


def download(repo_id: str, files: list[str], *, revision: str | None, endpoint: str | None) -> dict[str, Path]:
    """Download files into the cache of the hub's client, without those that the repository does not have.

    Args:
        repo_id: "user/name".
        files: names of the files.
        revision: branch, tag or commit; None: the default branch.
        endpoint: address of the hub; None: the default one.

    Returns:
        The paths of the downloaded files by name.

    Raises:
        PromptFileError: there is no such repository, or it cannot be downloaded; the message says why, and what to do.
    """
    found = {}
    for file in files:
        try:
            found[file] = download_file(repo_id, file, revision=revision, endpoint=endpoint)
        except NoSuchFileError:
            continue
        except HubError as error:
            if not found:  # offline, the cache may hold the first file only
                raise _not_had(file, repo_id, error) from None
    return found


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

    >>> path = from_hub("user/single-spair")  # doctest: +SKIP
    """
    check_names(repo_id=repo_id, file=file, revision=revision, endpoint=endpoint)
    try:
        path = download_file(repo_id, file, revision=revision, endpoint=endpoint)
    except HubError as error:
        raise _not_had(file, repo_id, error) from None
    read_prompt(path)
    return path


def check_names(**names: object) -> None:
    """Check names before they are passed to the hub's client.

    Args:
        names: values by name; "revision" and "endpoint" may be None.

    Raises:
        PromptFileError: a value is empty or no text.
    """
    for name, value in names.items():
        optional = name in ("revision", "endpoint")
        if not (optional and value is None) and not (isinstance(value, str) and value.strip()):
            raise PromptFileError(f"{name} must be a text that is not empty, not {shown(value)}")


def _not_had(file: str, repo_id: str, error: HubError) -> PromptFileError:
    return PromptFileError(
        f"cannot get {file[:80]} of {shown(repo_id)} from the hub: {error.explanation}; or give a path on this machine"
    )


def card(facts: Mapping[str, Any], name: str, *, learned: bool = True) -> str:
    """Return a model card (Markdown) of a prompt or a matcher.

    Args:
        facts: facts by name, as `describe_prompt` returns them: kind, backbone, base_model, license, data, ...
        name: "user/name", or a folder.
        learned: whether there is a learned prompt.

    >>> "learned on mini" in card({"kind": "single", "backbone": "mini"}, "me/mine")
    True
    """
    backbone = facts.get("backbone", "an unnamed backbone")
    front = {"library_name": "sd4match", "license": facts.get("license"), "base_model": facts.get("base_model")}
    head = "\n".join(f"{key}: {value}" for key, value in front.items() if value)
    rows = "\n".join(
        f"| {key} | {value if isinstance(value, str) else json.dumps(value)} |"
        for key, value in facts.items()
        if key != "fingerprint"
    )
    toy = (
        "\n`mini` is the small model that sd4match contains, trained on synthetic drawings. Its scores are not Stable "
        "Diffusion's.\n"
        if backbone == "mini"
        else ""
    )
    kind = a(str(facts["kind"])).capitalize()
    title, what = f"{kind} prompt learned on {backbone}", "A prompt for semantic matching with a frozen diffusion model"
    if not learned:
        title, what = f"A semantic matcher on {backbone}", "A semantic matcher without a learned prompt"
    return f"""---
{head}
tags: [semantic-correspondence, keypoint-matching, sd4match]
---

# {title}

{what} (SD4Match, arXiv 2310.17569): it finds points of one photo in another one of the same category.
{toy}
```python
from sd4match import SemanticMatcher

matcher = SemanticMatcher.from_pretrained({json.dumps(name, ensure_ascii=False)})
result = matcher.match("cat.jpg", "other_cat.jpg", points=[(120, 80)])
```

| | |
| --- | --- |
{rows}
"""
