"""Folders of matchers: experiment, prompt file and card, on disk and on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sd4match.backbones.pretrained import model_facts
from sd4match.checks import check_number
from sd4match.config.experiment import ExperimentConfig, load_config
from sd4match.config.presets import load_experiment
from sd4match.errors import ConfigError, InputError, shown
from sd4match.hashing import digest
from sd4match.interfaces import Backbone, Prompt, learns
from sd4match.io.files import check_output_file, write_together
from sd4match.paths import as_path, exists, is_file, is_folder, read_text
from sd4match.prompting.hub import FILE_NAME, card, check_names, download, upload
from sd4match.prompting.serialization import describe_prompt, is_prompt_file, read_prompt, save_prompt

EXPERIMENT_FILE = "experiment.yaml"
CARD_FILE = "README.md"
_FIRST_LINE = "# An experiment of sd4match: `SemanticMatcher.from_pretrained` reads this folder.\n"


def write_matcher(
    config: ExperimentConfig,
    prompt: Prompt,
    folder: str | Path,
    *,
    backbone: Backbone,
    name: str,
    results: Mapping[str, Any] | None = None,
    components: Mapping[str, Any] | None = None,
) -> Path:
    """Write the folder of a matcher; the files appear together or not at all.

    Args:
        config: config of the matcher; its data set is left out.
        prompt: prompt, learned or not.
        folder: folder to write to; it is created if it does not exist, and an earlier matcher in it is replaced.
        backbone: backbone that the prompt was learned on.
        name: name of the matcher in the snippet of the card.
        results: PCK by name, for the card.
        components: components that may have been learned beside the prompt; see `save_prompt`.

    Returns:
        The folder.

    Raises:
        InputError: the folder holds files of these names that sd4match did not write, or cannot be written.
    """
    folder = as_path(folder, what="the folder of a matcher")
    for text, value in (results or {}).items():
        if not isinstance(value, str):
            check_number(f"results[{shown(text)}]", value)
    experiment, prompt_file, card_file = (folder / file for file in (EXPERIMENT_FILE, FILE_NAME, CARD_FILE))
    check_output_file(experiment, option="the folder's", is_own=_is_experiment, what="experiment")
    check_output_file(
        prompt_file, option="the folder's", is_own=lambda path: exists(experiment) and is_prompt_file(path),
        what="prompt file",
    )  # fmt: skip
    check_output_file(card_file, option="the folder's", is_own=_is_card, what="card")
    facts = model_facts(config.backbone.model_name)
    details = {**prompt.details, **facts}
    described: dict[str, Any] = {"kind": config.prompt.kind, "config": config.prompt.model_dump(mode="json"), **details}
    contents = {}
    if any(map(learns, (prompt, *(components or {}).values()))):
        with TemporaryDirectory() as temporary:
            file = save_prompt(
                prompt, Path(temporary) / FILE_NAME, backbone=backbone, details=details, components=components
            )
            described = describe_prompt(read_prompt(file)[0])
            contents[prompt_file] = file.read_bytes()
    elif exists(prompt_file):
        raise InputError(f"{prompt_file} belongs to an earlier matcher with a learned prompt: give another folder")
    protocol = config.evaluation.protocol.name
    described |= {"matcher": config.matcher.kind, "protocol": protocol, **(results or {})}
    contents[experiment] = (_FIRST_LINE + config.model_copy(update={"data": None}).to_yaml()).encode()
    contents[card_file] = _signed(card(described, name, learned=prompt_file in contents)).encode(
        errors="backslashreplace"
    )
    write_together(contents, name=f"the matcher to {folder}", error=InputError)
    return folder


def read_matcher(
    source: str | Path, *, revision: str | None = None, endpoint: str | None = None, overrides: Iterable[str] = ()
) -> tuple[ExperimentConfig, Path | None]:
    """Return the experiment and the prompt file of a matcher's folder or repository; None if nothing is learned.

    Where there is only a prompt file, the experiment is that of the model that the file names.

    Args:
        source: a folder, or "user/name" on the hub.
        revision: branch, tag or commit on the hub; None: the default branch.
        endpoint: address of the hub; None: the default one.
        overrides: changes `a.b=c` of the experiment.

    Raises:
        PromptFileError: the hub cannot be reached, or has no such repository.
        ConfigError: there is no such folder, no experiment and no prompt file, or they are damaged.
    """
    local = as_path(source, what="the folder of a matcher")
    if is_folder(local):
        files = {name: local / name for name in (EXPERIMENT_FILE, FILE_NAME) if is_file(local / name)}
    elif exists(local):
        raise ConfigError(f"{shown(str(source))} is a file: give the folder of a matcher, or its name on the hub")
    elif isinstance(source, Path) or local.is_absolute() or str(source).startswith("."):
        raise ConfigError(f'no such folder: {shown(str(local))}; a matcher on the hub is named by a text, "user/name"')
    else:
        check_names(repo_id=str(source), revision=revision, endpoint=endpoint)
        files = download(str(source), [EXPERIMENT_FILE, FILE_NAME], revision=revision, endpoint=endpoint)
    prompt = files.get(FILE_NAME)
    if EXPERIMENT_FILE in files:
        if not read_text(files[EXPERIMENT_FILE], what="experiment", error=ConfigError).strip():
            raise ConfigError(f"{files[EXPERIMENT_FILE]} is empty: it is damaged, and names no matcher")
        return load_config(files[EXPERIMENT_FILE], overrides), prompt
    if prompt is None:
        raise ConfigError(f"{shown(str(source))} has neither {EXPERIMENT_FILE} nor {FILE_NAME}: it holds no matcher")
    model = read_prompt(prompt)[0].details.get("backbone")
    try:
        return load_experiment("empty", model=str(model), overrides=["data=null", *overrides]), prompt
    except ConfigError as error:
        raise ConfigError(
            f"{shown(str(source))} has no {EXPERIMENT_FILE}, and its prompt was learned on {shown(model)}: {error}"
        ) from None


def push_matcher(folder: Path, repo_id: str, *, private: bool, endpoint: str | None) -> str:
    """Upload the folder of a matcher to a repository, which is created if it does not exist.

    Raises:
        PromptFileError: `repo_id` is not a name, or the hub refuses it.
    """
    check_names(repo_id=repo_id, endpoint=endpoint)
    return upload(folder, repo_id, private=private, endpoint=endpoint, what="a matcher")


def _is_experiment(path: Path) -> bool:
    try:
        return path.read_text(encoding="utf-8").startswith(_FIRST_LINE)
    except (OSError, UnicodeDecodeError):
        return False


def _signed(text: str) -> str:
    """Return a card with a digest as its last line, by which later edits are detected."""
    return f"{text}\n<!-- written by sd4match: {digest(text)} -->\n"


def _is_card(path: Path) -> bool:
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    text, _, _ = content.rpartition("\n<!-- ")
    return content == _signed(text)
