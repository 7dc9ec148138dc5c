"""Configs of the prompt providers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sd4match.errors import ConfigError
from sd4match.registry import ComponentConfig, prompts
from sd4match.spec import FeatureSpec


class PromptConfig(ComponentConfig):
    """What every prompt's config says before it is built."""

    @property
    def needs_category(self) -> bool:
        """Whether every photo must have a category."""
        return False

    def check_spec(self, spec: FeatureSpec) -> None:
        """Refuse a backbone that this prompt cannot condition.

        Raises:
            ConfigError: the backbone takes no prompt, or this one does not fit into its slots.
        """
        if spec.prompt_width is None:
            raise ConfigError(
                f"prompt {self.kind!r} does nothing on a backbone that takes no prompt ({spec.architecture})"
            )


@prompts.register
class EmptyPromptConfig(PromptConfig):
    """The empty text."""

    kind: Literal["empty"] = "empty"
    implementation = "sd4match.prompting.fixed:EmptyPrompt"


@prompts.register
class TextPromptConfig(PromptConfig):
    """A text in which {category} stands for the photo's category."""

    kind: Literal["text"] = "text"
    template: str = "a photo of a {category}"
    by_category: dict[str, str] = Field({}, description="templates of single categories, before `template`")
    implementation = "sd4match.prompting.fixed:TextPrompt"

    @property
    def needs_category(self) -> bool:
        """Whether the template asks for one."""
        return "{category}" in self.template

    @model_validator(mode="after")
    def _only_category(self) -> TextPromptConfig:
        for template in (self.template, *self.by_category.values()):
            try:
                template.format(category="x")
            except (KeyError, IndexError, ValueError, AttributeError):
                raise ValueError(f"only {{category}} can be filled in, not {template!r}") from None
        return self


@prompts.register
class SinglePromptConfig(PromptConfig):
    """One learned prompt for everything (SD4Match-Single)."""

    kind: Literal["single"] = "single"
    slots: int = Field(75, ge=1, description="learned vectors between BOS and EOS")
    seed: int = Field(0, description="of the random initialisation")
    implementation = "sd4match.prompting.learned:SinglePrompt"

    def check_spec(self, spec: FeatureSpec) -> None:
        """Also: slots, BOS and EOS must fit."""
        super().check_spec(spec)
        if self.slots + 2 > spec.token_budget:
            raise ConfigError(
                f"prompt.slots = {self.slots} with BOS and EOS do not fit into the {spec.token_budget} text slots of "
                f"backbone ({spec.architecture}); at most {spec.token_budget - 2}"
            )
