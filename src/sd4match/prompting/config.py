"""Configs of prompts. Importing this module loads no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import override

from sd4match.arguments import check_arguments
from sd4match.errors import ConfigError, shown
from sd4match.fields import Seed, Text
from sd4match.registry import AnyImageEncoder, Component, Registry, image_encoders, prompts, register
from sd4match.structures.specs import FeatureSpec

if TYPE_CHECKING:
    from sd4match.interfaces import Backbone, Prompt
    from sd4match.prompting.captioner import ImplicitCaptioner
    from sd4match.prompting.conditional import ConditionalPrompt
    from sd4match.prompting.learned import ClassPrompt, SinglePrompt
    from sd4match.prompting.text import EmptyPrompt, NoPrompt, TextPrompt


SCOPES = ("dataset", "category", "image", "pair")
"""Inputs that a prompt may depend on; see `Prompt.scope`."""


class PromptConfig(Component):
    """Base class of configs of prompts. Subclasses define `build`.

    >>> config = prompts.parse({"kind": "text", "template": "a {category}"})
    >>> isinstance(config, PromptConfig), config.needs_category
    (True, True)
    """

    registry: ClassVar[Registry[Any, Any]] = prompts

    @check_arguments
    def build(self, *, backbone: Backbone, initialize: bool = True) -> Prompt:
        """Return the prompt.

        Args:
            backbone: backbone that the prompt conditions.
            initialize: False leaves the parameters without values, for a state dict that is loaded next.

        Raises:
            ConfigError: the prompt does not fit the backbone.
            InputError: the backbone takes no prompt, or an initial text is too long.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define build")

    @classmethod
    def check_target(cls, target: Callable[..., Any]) -> None:
        """Check the scope of a prompt class.

        Args:
            target: the class.

        Raises:
            ConfigError: there is no such scope.
        """
        scope = getattr(target, "scope", "dataset")
        if not isinstance(scope, property) and (not isinstance(scope, str) or scope not in SCOPES):
            name = getattr(target, "__name__", shown(target))
            raise ConfigError(f"{name}: scope must be one of {', '.join(SCOPES)}, not {shown(scope)}")

    def attach(self, built: Any, **context: Any) -> Any:
        """Set this config as the `config` of a prompt that was built from the signature of its class.

        Args:
            built: the prompt.
            context: keywords that `build` received.

        Returns:
            The prompt.
        """
        built.config = self
        return built

    @property
    def needs_category(self) -> bool:
        """True if every photo must have a category."""
        return getattr(self.target, "scope", None) == "category"

    @property
    def wants_categories(self) -> bool:
        """True if categories must be set with `for_categories` before the prompt can be built; by default False."""
        return False

    @check_arguments
    def for_categories(self, categories: Sequence[str]) -> PromptConfig:
        """Return the config for a data set with some categories; by default this config.

        Args:
            categories: categories of the data set.
        """
        return self

    @check_arguments
    def check_spec(self, spec: FeatureSpec) -> None:
        """Check that this prompt can condition a backbone.

        Args:
            spec: shapes of the backbone.

        Raises:
            ConfigError: the backbone takes no prompt, or has fewer text tokens than this prompt needs.
        """
        if spec.prompt_width is None:
            raise ConfigError(
                f"prompt {self.kind!r} does nothing on a backbone that takes no prompt ({spec.architecture}); "
                "use 'none'"
            )


@register
class NoPromptConfig(PromptConfig):
    """Config of an empty embedding, for backbones that take no prompt.

    >>> from sd4match.structures.images import ImageBatch
    >>> NoPromptConfig().build()(ImageBatch({}, (None,))).values.shape
    torch.Size([1, 0, 1])
    """

    kind: Literal["none"] = "none"

    @override
    @check_arguments
    def build(self, *, backbone: Backbone | None = None, initialize: bool = True) -> NoPrompt:
        from sd4match.prompting.text import NoPrompt

        return NoPrompt(self, backbone=backbone)

    @check_arguments
    def check_spec(self, spec: FeatureSpec) -> None:
        """Check that a backbone takes no prompt.

        Args:
            spec: shapes of the backbone.

        Raises:
            ConfigError: the backbone needs a prompt.
        """
        if spec.prompt_width is not None:
            raise ConfigError(f"prompt 'none' is for backbones without one; ({spec.architecture}) needs one: 'empty'")


@register
class EmptyPromptConfig(PromptConfig):
    """Config of the empty text.

    >>> prompts.parse("empty")
    EmptyPromptConfig(kind='empty')
    """

    kind: Literal["empty"] = "empty"

    @override
    @check_arguments
    def build(self, *, backbone: Backbone, initialize: bool = True) -> EmptyPrompt:
        from sd4match.prompting.text import EmptyPrompt

        return EmptyPrompt(self, backbone=backbone)


@register
class TextPromptConfig(PromptConfig):
    """Config of a text in which {category} is replaced by the category of the photo.

    >>> TextPromptConfig(template="a {category}", by_category={"person": "a face"}).by_category
    {'person': 'a face'}
    """

    kind: Literal["text"] = "text"
    template: Text = "a photo of a {category}"
    by_category: dict[Text, Text] = Field(
        default={}, description="templates of single categories, used instead of `template`"
    )

    @override
    @check_arguments
    def build(self, *, backbone: Backbone, initialize: bool = True) -> TextPrompt:
        from sd4match.prompting.text import TextPrompt

        return TextPrompt(self, backbone=backbone)

    @property
    def needs_category(self) -> bool:
        """True if the template contains {category}, or some categories have templates of their own."""
        return "{category}" in self.template or bool(self.by_category)

    @model_validator(mode="after")
    def _check_templates(self) -> TextPromptConfig:
        for template in (self.template, *self.by_category.values()):
            check_template(template)
        return self


def check_template(template: str) -> str:
    """Return a template after a check that its only braces are those of {category}.

    Args:
        template: text.

    Raises:
        ValueError: it has other braces, for example those of a format.

    >>> check_template("a photo of a {category}")
    'a photo of a {category}'
    """
    rest = template.replace("{category}", "")
    if "{" in rest or "}" in rest:
        raise ValueError(f"only {{category}} can be filled in, and no other braces may stand in {shown(template)}")
    return template


def check_fixed(text: str) -> str:
    """Return a text after a check that it has no replacement fields.

    Args:
        text: any.

    Raises:
        ValueError: it contains a brace.
    """
    if "{" in text or "}" in text:
        raise ValueError(f"this prompt is the same for all categories: nothing can be filled in, as in {shown(text)}")
    return text


class LearnedPromptConfig(PromptConfig):
    """Base class of configs of learned prompts, with the initialization of their vectors."""

    init: Text = Field(
        default="random",
        description='"random" (tokens of the vocabulary; U[0, 1) in hidden space), "uniform", "empty", or a text',
    )
    start_from: Text | None = Field(
        default=None, description="prompt file with the initial vectors, used instead of `init`"
    )
    seed: Seed = Field(default=0, description="seed of the random initialization")

    def _check_num_tokens(self, fields: str, num_tokens: int, spec: FeatureSpec) -> None:
        super().check_spec(spec)
        if num_tokens + 2 > spec.max_length:
            raise ConfigError(
                f"{fields} = {num_tokens} with BOS and EOS do not fit into the {spec.max_length} text tokens of "
                f"backbone ({spec.architecture}); at most {spec.max_length - 2}"
            )


class _VectorsConfig(LearnedPromptConfig):
    num_tokens: int = Field(
        default=75, ge=1, le=10_000, description="learned vectors between BOS and EOS; not used in hidden space"
    )
    space: Literal["token", "hidden"] = Field(
        default="token", description="what is learned: the input of the text transformer, or its whole output"
    )

    @override
    @check_arguments
    def check_spec(self, spec: FeatureSpec) -> None:
        self._check_num_tokens("prompt.num_tokens", self.num_tokens, spec)


@register
class SinglePromptConfig(_VectorsConfig):
    """Config of one learned prompt for all photos (SD4Match-Single).

    >>> SinglePromptConfig(num_tokens=10).init
    'random'
    """

    kind: Literal["single"] = "single"

    _fixed = field_validator("init")(check_fixed)

    @override
    @check_arguments
    def build(self, *, backbone: Backbone, initialize: bool = True) -> SinglePrompt:
        from sd4match.prompting.learned import SinglePrompt

        return SinglePrompt(self, backbone=backbone, initialize=initialize)


@register
class ClassPromptConfig(_VectorsConfig):
    """Config of one learned prompt for each category (SD4Match-Class). `init` may contain {category}.

    >>> ClassPromptConfig(num_tokens=10).for_categories(["cat", "car"]).categories
    ('cat', 'car')
    """

    kind: Literal["class"] = "class"
    categories: tuple[Text, ...] = Field(
        default=(), description="categories to learn; none: those of the training data"
    )
    fallback: Literal["error", "text"] = Field(
        default="error", description="for a photo of a category without a prompt"
    )

    _template = field_validator("init")(check_template)

    @field_validator("categories")
    @classmethod
    def _each_once(cls, categories: tuple[str, ...]) -> tuple[str, ...]:
        twice = [name for name, count in Counter(categories).items() if count > 1]
        if twice:
            raise ValueError(f"{shown(twice[0])} appears twice")
        return categories

    @override
    @check_arguments
    def build(self, *, backbone: Backbone, initialize: bool = True) -> ClassPrompt:
        from sd4match.prompting.learned import ClassPrompt

        return ClassPrompt(self, backbone=backbone, initialize=initialize)

    @property
    def needs_category(self) -> bool:
        """True, since each category has its own prompt."""
        return True

    @property
    def wants_categories(self) -> bool:
        """True if `categories` is empty."""
        return not self.categories

    @check_arguments
    def for_categories(self, categories: Sequence[str]) -> ClassPromptConfig:
        """Return the config with other categories.

        Args:
            categories: categories to learn.

        Raises:
            ConfigError: a category appears twice.
        """
        return self.model_copy(update={"categories": tuple(categories)})


@register
class ConditionalPromptConfig(LearnedPromptConfig):
    """Config of the conditional prompting module (SD4Match-CPM) and its ablations.

    >>> ConditionalPromptConfig().mixes_patches, ConditionalPromptConfig(condition_on="image").mixes_patches
    (True, False)
    """

    kind: Literal["cpm"] = "cpm"
    image_encoder: AnyImageEncoder = Field(default_factory=lambda: image_encoders.parse("dinov2"))
    condition_on: Literal["pair", "image"] = "pair"
    features: Literal["local", "global"] = "local"
    num_global_tokens: int = Field(
        default=25, ge=0, le=10_000, description="learned vectors that are the same for all photos"
    )
    num_tokens: int = Field(default=50, ge=1, le=10_000, description="vectors computed from the photos")
    mix_patches: bool | None = Field(
        default=None, description="whether there is a W_N; None: for local features of a pair, as in the paper"
    )
    init: Text = Field(default="uniform", description="of the global vectors; as in a single prompt")

    _fixed = field_validator("init")(check_fixed)

    @override
    @check_arguments
    def build(self, *, backbone: Backbone, initialize: bool = True) -> ConditionalPrompt:
        from sd4match.prompting.conditional import ConditionalPrompt

        return ConditionalPrompt(self, backbone=backbone, initialize=initialize)

    @model_validator(mode="after")
    def _check_mix_patches(self) -> ConditionalPromptConfig:
        if self.mix_patches and self.features == "global":
            raise ValueError("mix_patches = true needs features = local: a global descriptor has no patches to mix")
        return self

    @property
    def mixes_patches(self) -> bool:
        """True if there is a linear layer over patches, W_N."""
        if self.mix_patches is None:
            return self.condition_on == "pair" and self.features == "local"
        return self.mix_patches

    @override
    @check_arguments
    def check_spec(self, spec: FeatureSpec) -> None:
        self._check_num_tokens(
            "prompt.num_global_tokens + prompt.num_tokens", self.num_global_tokens + self.num_tokens, spec
        )


@register
class ImplicitCaptionerConfig(PromptConfig):
    """Config of the implicit captioner of ODISE: the empty prompt plus a gated projection of an image embedding.

    >>> ImplicitCaptionerConfig().image_encoder.kind
    'clip'
    """

    kind: Literal["implicit_captioner"] = "implicit_captioner"
    image_encoder: AnyImageEncoder = Field(default_factory=lambda: image_encoders.parse("clip"))
    seed: Seed = Field(default=0, description="seed of the random initialization")

    @override
    @check_arguments
    def build(self, *, backbone: Backbone, initialize: bool = True) -> ImplicitCaptioner:
        from sd4match.prompting.captioner import ImplicitCaptioner

        return ImplicitCaptioner(self, backbone=backbone, initialize=initialize)
