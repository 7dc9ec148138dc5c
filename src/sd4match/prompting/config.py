"""Configs of the prompt providers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator, model_validator

from sd4match.errors import ConfigError
from sd4match.registry import AnyImageEncoder, ComponentConfig, image_encoders, prompts
from sd4match.structures.specs import FeatureSpec


class PromptConfig(ComponentConfig):
    """What every prompt's config says before it is built."""

    @property
    def needs_category(self) -> bool:
        """Whether every photo must have a category."""
        return False

    @property
    def wants_categories(self) -> bool:
        """Whether it learns something for each category and does not name them yet: then `for_categories` is asked."""
        return False

    def for_categories(self, categories: Sequence[str]) -> PromptConfig:
        """The config for a data set with these categories."""
        return self

    def without_start(self) -> PromptConfig:
        """The config for a prompt whose weights come from a file, so that where it started need not be there."""
        return self

    def check_spec(self, spec: FeatureSpec) -> None:
        """Refuse a backbone that this prompt cannot condition.

        Raises:
            ConfigError: the backbone takes no prompt, or this one does not fit into its slots.
        """
        if spec.prompt_width is None:
            raise ConfigError(
                f"prompt {self.kind!r} does nothing on a backbone that takes no prompt ({spec.architecture}); "
                "use 'none'"
            )


@prompts.register
class NoPromptConfig(PromptConfig):
    """For backbones that take no prompt."""

    kind: Literal["none"] = "none"
    implementation = "sd4match.prompting.text:NoPrompt"

    def check_spec(self, spec: FeatureSpec) -> None:
        """Refuse a backbone that wants one."""
        if spec.prompt_width is not None:
            raise ConfigError(f"prompt 'none' is for backbones without one; ({spec.architecture}) needs one: 'empty'")


@prompts.register
class EmptyPromptConfig(PromptConfig):
    """The empty text."""

    kind: Literal["empty"] = "empty"
    implementation = "sd4match.prompting.text:EmptyPrompt"


@prompts.register
class TextPromptConfig(PromptConfig):
    """A text in which {category} stands for the photo's category."""

    kind: Literal["text"] = "text"
    template: str = "a photo of a {category}"
    by_category: dict[str, str] = Field({}, description="templates of single categories, before `template`")
    implementation = "sd4match.prompting.text:TextPrompt"

    @property
    def needs_category(self) -> bool:
        """Whether the template asks for one."""
        return "{category}" in self.template

    @model_validator(mode="after")
    def _only_category(self) -> TextPromptConfig:
        for template in (self.template, *self.by_category.values()):
            check_template(template)
        return self


def check_template(template: str) -> str:
    """A text in which nothing but {category} is to be filled in.

    Raises:
        ValueError: something else is.
    """
    try:
        template.format(category="x")
    except (KeyError, IndexError, ValueError, AttributeError):
        raise ValueError(f"only {{category}} can be filled in, not {template!r}") from None
    return template


def check_fixed(text: str) -> str:
    """A text in which nothing is to be filled in.

    Raises:
        ValueError: something is.
    """
    if "{" in text or "}" in text:
        raise ValueError(f"this prompt is the same for all categories: nothing can be filled in, as in {text!r}")
    return text


class LearnedPromptConfig(PromptConfig):
    """Where learned vectors start."""

    init: str = Field(
        "random",
        description='"random" (words of the vocabulary; U[0, 1) in hidden space), "uniform", "empty", or a text',
    )
    start_from: str | None = Field(None, description="a prompt file to start from, instead of `init`")
    seed: int = Field(0, description="of the random initialisation")

    def without_start(self) -> PromptConfig:
        """Without a text or a file to start from."""
        return self.model_copy(update={"init": "random", "start_from": None})

    def _check_slots(self, fields: str, slots: int, spec: FeatureSpec) -> None:
        super().check_spec(spec)
        if slots + 2 > spec.token_budget:
            raise ConfigError(
                f"{fields} = {slots} with BOS and EOS do not fit into the {spec.token_budget} text slots of "
                f"backbone ({spec.architecture}); at most {spec.token_budget - 2}"
            )


class _VectorsConfig(LearnedPromptConfig):
    slots: int = Field(75, ge=1, description="learned vectors between BOS and EOS; not used in hidden space")
    space: Literal["token", "hidden"] = Field(
        "token", description="what is learned: the text transformer's input, or its whole output"
    )

    def check_spec(self, spec: FeatureSpec) -> None:
        """Also: slots, BOS and EOS must fit."""
        self._check_slots("prompt.slots", self.slots, spec)


@prompts.register
class SinglePromptConfig(_VectorsConfig):
    """One learned prompt for everything (SD4Match-Single)."""

    kind: Literal["single"] = "single"
    _fixed = field_validator("init")(check_fixed)
    implementation = "sd4match.prompting.learned:SinglePrompt"


@prompts.register
class ClassPromptConfig(_VectorsConfig):
    """One learned prompt for each category (SD4Match-Class). `init` may name the {category}."""

    kind: Literal["class"] = "class"
    categories: tuple[str, ...] = Field((), description="those of the training data, if not given")
    fallback: Literal["error", "text"] = Field("error", description="for a photo of a category without a prompt")
    implementation = "sd4match.prompting.learned:ClassPrompt"

    _template = field_validator("init")(check_template)

    @property
    def needs_category(self) -> bool:
        """Always."""
        return True

    @property
    def wants_categories(self) -> bool:
        """Unless it names its own."""
        return not self.categories

    def for_categories(self, categories: Sequence[str]) -> PromptConfig:
        """Learn these."""
        return self.model_copy(update={"categories": tuple(categories)})


@prompts.register
class ConditionalPromptConfig(LearnedPromptConfig):
    """The conditional prompting module (SD4Match-CPM). Its ablations are its settings."""

    kind: Literal["cpm"] = "cpm"
    image_encoder: AnyImageEncoder = Field(default_factory=lambda: image_encoders.parse("dinov2"))
    condition_on: Literal["pair", "image"] = "pair"
    features: Literal["local", "global"] = "local"
    global_slots: int = Field(25, ge=0, description="vectors that every photo gets; 0: none")
    slots: int = Field(50, ge=1, description="vectors that the photos decide")
    mix_patches: bool | None = Field(None, description="W_N; not given: for local features of a pair, as in the paper")
    init: str = Field("uniform", description="of the global vectors; as in a single prompt")
    _fixed = field_validator("init")(check_fixed)
    implementation = "sd4match.prompting.conditional:ConditionalPrompt"

    @model_validator(mode="after")
    def _nothing_to_mix(self) -> ConditionalPromptConfig:
        if self.mix_patches and self.features == "global":
            raise ValueError("mix_patches = true needs features = local: a global descriptor has no patches to mix")
        return self

    @property
    def mixes_patches(self) -> bool:
        """Whether there is a W_N."""
        if self.mix_patches is None:
            return self.condition_on == "pair" and self.features == "local"
        return self.mix_patches

    def check_spec(self, spec: FeatureSpec) -> None:
        """Also: both sorts of slots, BOS and EOS must fit."""
        self._check_slots("prompt.global_slots + prompt.slots", self.global_slots + self.slots, spec)


@prompts.register
class ImplicitCaptionerConfig(PromptConfig):
    """ODISE's implicit captioner: the empty prompt plus a gated projection of an image embedding."""

    kind: Literal["implicit_captioner"] = "implicit_captioner"
    image_encoder: AnyImageEncoder = Field(default_factory=lambda: image_encoders.parse("clip"))
    seed: int = Field(0, description="of the random initialisation")
    implementation = "sd4match.prompting.captioner:ImplicitCaptioner"
