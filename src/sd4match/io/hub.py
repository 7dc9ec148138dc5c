"""Downloads from the Hugging Face hub, with errors that give a reason and advice. Importing this loads no client."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sd4match.errors import SD4MatchError, shown

_LONGEST = 300
_NO_CONNECTION = {"RequestError", "RequestException", "ConnectionError", "TimeoutError", "SSLError", "gaierror"}
"""Names of error classes of Python and of the client's HTTP library, which differs between versions of the client."""
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class HubError(SD4MatchError):
    """Error about a download from the hub, with a reason and advice. Callers turn it into their own class of error.

    Args:
        repo_id: "owner/name".
        reason: why the download failed.
        advice: what to do, in the imperative.

    >>> error = HubError("owner/name", "it is gated", "accept its terms")
    >>> str(error), error.explanation
    ('hub owner/name (it is gated)', 'it is gated; accept its terms')
    """

    def __init__(self, repo_id: str, reason: str, advice: str) -> None:
        super().__init__(f"hub {repo_id[:100]} ({reason})")
        self.reason = reason
        self.advice = advice

    @property
    def explanation(self) -> str:
        """Reason and advice, without the name of the repository."""
        return f"{self.reason}; {self.advice}"


class NoSuchFileError(HubError):
    """Error about a file that a repository does not have."""


def download_file(repo_id: str, file: str, *, revision: str | None = None, endpoint: str | None = None) -> Path:
    """Return a file of a repository from the cache of the hub's client, after downloading it if necessary.

    Args:
        repo_id: "owner/name".
        file: name of the file in the repository.
        revision: branch, tag or commit; None: the default branch.
        endpoint: address of the hub; None: the default one.

    Raises:
        NoSuchFileError: the repository has no such file.
        HubError: the file cannot be downloaded.
    """
    import huggingface_hub

    try:
        return Path(huggingface_hub.hf_hub_download(repo_id, file, revision=revision, endpoint=endpoint))
    except Exception as error:  # the client does not wrap errors of its HTTP library
        raise explain(error, repo_id, revision=revision, endpoint=endpoint) from None


def download_folder(repo_id: str, patterns: Sequence[str]) -> Path:
    """Return the folder of a repository in the cache of the hub's client, after downloading files if necessary.

    Args:
        repo_id: "owner/name".
        patterns: patterns of the names of the files.

    Raises:
        HubError: the files cannot be downloaded.
    """
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(repo_id, allow_patterns=list(patterns)))
    except Exception as error:
        raise explain(error, repo_id) from None


def explain(error: Exception, repo_id: str, *, revision: str | None = None, endpoint: str | None = None) -> HubError:
    """Return the reason of an error of the hub's client, with advice.

    Args:
        error: error of the client.
        repo_id: "owner/name".
        revision: requested branch, tag or commit.
        endpoint: address of the hub; None: the default one.
    """
    known = recognize(error, repo_id, revision=revision, endpoint=endpoint)
    return known or HubError(
        repo_id, f"{type(error).__name__}: {_one_line(error)}", "give the path of a folder instead"
    )


def recognize(
    error: BaseException, repo_id: str, *, revision: str | None = None, endpoint: str | None = None
) -> HubError | None:
    """Return the reason of an error of the hub, the network or the client's cache; None for any other error.

    Args:
        error: error of the client.
        repo_id: "owner/name".
        revision: requested branch, tag or commit.
        endpoint: address of the hub; None: the default one.
    """
    from huggingface_hub import constants, errors

    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else error
    if isinstance(cause, errors.OfflineModeIsEnabled) or cause is None:
        start = "only a part of it is" if hasattr(error, "snapshot_path") else "not"
        if cause is None and not constants.HF_HUB_OFFLINE:
            return HubError(repo_id, f"{start} in its cache, and nothing was downloaded", "get it with `hf download`")
        return HubError(
            repo_id, f"{start} in its cache, and HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE to reach the hub"
        )
    if cause is not error:  # the cause says more
        return recognize(cause, repo_id, revision=revision, endpoint=endpoint)
    if isinstance(error, errors.HfHubHTTPError):
        return _refused(error, repo_id, revision, (endpoint or constants.ENDPOINT).rstrip("/"))
    if isinstance(error, errors.EntryNotFoundError):
        return NoSuchFileError(repo_id, "it has no such file", "look at what it holds")
    if isinstance(error, errors.HFValidationError):
        return HubError(repo_id, f"no name of a repository: {_one_line(error)}", 'give "owner/name"')
    address = shown(endpoint or constants.ENDPOINT)
    if isinstance(error, errors.FileMetadataError):
        return HubError(
            repo_id, f"{address} does not answer as the hub does",
            "check HF_ENDPOINT, and whether the network wants a login",
        )  # fmt: skip
    if not _NO_CONNECTION.isdisjoint(base.__name__ for base in type(error).__mro__):
        return HubError(
            repo_id, f"no connection to {address}, {type(error).__name__}: {_one_line(error)}",
            "check the network, set HTTPS_PROXY behind a proxy, or set HF_ENDPOINT to a mirror",
        )  # fmt: skip
    if isinstance(error, OSError) and (
        error.filename or isinstance(error, PermissionError) or error.errno in _NO_SPACE
    ):
        where = shown(str(error.filename or constants.HF_HUB_CACHE))
        return HubError(
            repo_id, f"cannot write to the hub's cache, {where}: {error.strerror or _one_line(error)}",
            "make it writable and see that its disk has space, or set HF_HOME to another folder",
        )  # fmt: skip
    return None


def _refused(error: Any, repo_id: str, revision: str | None, endpoint: str) -> HubError:
    """Return the reason why the hub refuses a request."""
    from huggingface_hub import errors, get_token

    page = f"{endpoint}/{repo_id[:200]}"
    status = getattr(error.response, "status_code", None)
    said = f"; the hub says: {_one_line(error.server_message)}" if error.server_message else ""
    token = get_token() is not None
    if isinstance(error, errors.GatedRepoError):
        if token:
            reason = "it is gated, and the account of the token has not been given access"
            advice = f"accept its terms or ask for access at {page}, or log in with another account, `hf auth login`"
        else:
            reason = "it is gated: only accounts that accepted its terms may download it, and no token was sent"
            advice = f"accept its terms at {page} and log in with `hf auth login`, or set HF_TOKEN"
    elif isinstance(error, errors.RepositoryNotFoundError):
        reason = "there is no such repository, or it is private and the account " + (
            "of the token cannot see it" if token else "is not known, because no token was sent"
        )
        advice = f"check the name at {page}; for a private one log in with `hf auth login`"
    elif isinstance(error, errors.RevisionNotFoundError):
        reason = f"it has no revision {shown(revision or 'main')}"
        advice = f"give a branch, a tag or a commit of {page}/tree/main"
    elif isinstance(error, errors.EntryNotFoundError):
        return NoSuchFileError(repo_id, f"it has no such file{said}", f"look at what it holds, {page}/tree/main")
    elif isinstance(error, errors.DisabledRepoError):
        reason, advice = "it was disabled", f"read why at {page}, and use another one"
    elif status in (401, 403):
        reason = f"the hub refuses {'the token' if token else 'a request without a token'} ({status})"
        advice = "log in with `hf auth login`, with an account and a token that may do this"
    elif status == 429 or (status or 0) >= 500:
        reason = f"the hub has {'had too many requests' if status == 429 else 'an error of its own'} ({status})"
        advice = "try again later"
    else:
        reason, advice = f"the hub refuses it ({_one_line(error)})", f"look at {page}"
        said = ""
    return HubError(repo_id, reason + said, advice)


def _one_line(error: object) -> str:
    """Return the text of a foreign error, shortened and on one line."""
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
