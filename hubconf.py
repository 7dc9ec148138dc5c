"""`torch.hub.load("OWNER/sd4match", "semantic_matcher")`: a matcher of two photos, by the name of a preset."""

dependencies = [
    "torch", "numpy", "scipy", "PIL", "diffusers", "transformers", "safetensors", "huggingface_hub", "pydantic", "yaml",
    "lazy_loader", "jaxtyping", "typing_extensions",
]  # fmt: skip


def semantic_matcher(preset="text", **options):  # type: ignore[no-untyped-def]
    """Return `sd4match.SemanticMatcher.from_preset(preset, **options)`.

    Args:
        preset: one of `sd4match.preset_names()`.
        options: prompt, overrides, device, dtype.
    """
    import sys
    from pathlib import Path

    source = str(Path(__file__).parent / "src")
    if source not in sys.path:
        sys.path.insert(0, source)
    from sd4match import SemanticMatcher

    return SemanticMatcher.from_preset(preset, **options)
