"""A config from a signature: what makes a prompt provider known in one line."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import create_model

from sd4match.prompting.config import PromptConfig
from sd4match.registry import prompts

Provider = TypeVar("Provider", bound=Callable[..., Any])


class _RegisteredConfig(PromptConfig):
    """The config that `register_prompt` makes of a provider's signature."""

    provider: ClassVar[Any]

    @property
    def needs_category(self) -> bool:
        """If the provider depends on it."""
        return getattr(self.provider, "scope", None) == "category"


def register_prompt(kind: str) -> Callable[[Provider], Provider]:
    """Make a prompt provider known by a kind: its config is its signature.

    Every keyword of `__init__` but `backbone` becomes a field, checked by its annotation; what is built knows its
    `config`, so that it can be saved.

    >>> @register_prompt("constant-example")
    ... class Constant:
    ...     scope = "dataset"
    ...     def __init__(self, *, backbone, value: float = 0.5): self.value = value
    >>> prompts.parse({"kind": "constant-example", "value": 2}).value
    2.0
    """

    def decorate(provider: Provider) -> Provider:
        fields = {
            name: tuple(
                other if given is Parameter.empty else given
                for given, other in ((parameter.annotation, Any), (parameter.default, ...))
            )
            for name, parameter in signature(provider, eval_str=True).parameters.items()
            if name != "backbone"
        }
        name = getattr(provider, "__name__", kind)
        config: type[_RegisteredConfig] = create_model(  # type: ignore[call-overload]
            f"{name}Config", __base__=_RegisteredConfig, kind=(Literal[kind], kind), **fields
        )

        def build(**settings: Any) -> Any:
            built = provider(**settings)
            built.config = config.of(**{field: settings[field] for field in fields})
            return built

        config.provider, config.implementation = provider, build
        prompts.register(config)
        return provider

    return decorate
