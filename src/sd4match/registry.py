"""Configs of components, and the door through which built-in and foreign ones alike come in.

A config is light: it names its implementation ("package.module:attribute") and imports it only to build it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points
from operator import attrgetter
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, SerializeAsAny, ValidationError
from pydantic.fields import FieldInfo

from sd4match.errors import ConfigError, UnknownComponentError, choose_from


class Settings(BaseModel):
    """A frozen group of fields that refuses unknown ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ComponentConfig(Settings):
    """Fields of one component. Subclasses fix `kind: Literal["..."]` and name what they build."""

    kind: str
    implementation: ClassVar[str | Callable[..., Any]]
    """"package.module:attribute", or the callable itself; called with the fields (without `kind`) as keywords."""

    @classmethod
    def of(cls, **fields: object) -> Self:
        """A config from its fields.

        Raises:
            ConfigError: a field is unknown, of a wrong type, or does not go with another.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise ConfigError(describe(error, cls)) from None


ConfigClass = TypeVar("ConfigClass", bound=type[ComponentConfig])


class Registry:
    """The known kinds of one sort of component.

    >>> shapes = Registry("shape", "example.shapes")
    >>> @shapes.register
    ... class Circle(ComponentConfig):
    ...     kind: str = "circle"
    ...     radius: float = 1.0
    ...     implementation = dict
    >>> shapes.build(shapes.parse({"kind": "circle", "radius": 2}))
    {'radius': 2.0}
    """

    def __init__(self, sort: str, entry_point_group: str, *, builtins: str | None = None) -> None:
        self.sort = sort
        self.entry_point_group = entry_point_group
        self.builtins = builtins
        """The module whose import registers what comes with the package."""
        self._configs: dict[str, type[ComponentConfig]] = {}

    def register(self, config: ConfigClass) -> ConfigClass:
        """Make a config class known; usable as a decorator.

        Raises:
            ConfigError: no fixed kind, no implementation, or the kind is taken.
        """
        if not (isinstance(config, type) and issubclass(config, ComponentConfig)):
            raise ConfigError(f"only ComponentConfig classes can be registered as {self.sort}, not {config!r}")
        fields: dict[str, FieldInfo] = config.__pydantic_fields__
        kind = fields["kind"].default
        if not isinstance(kind, str):
            raise ConfigError(f'{config.__name__} needs a fixed kind: kind: Literal["name"] = "name"')
        if not hasattr(config, "implementation"):
            raise ConfigError(f"{config.__name__} does not say what it builds: implementation = ...")
        if self._configs.setdefault(kind, config) is not config:
            raise ConfigError(f"the {self.sort} kind {kind!r} is taken by {self._configs[kind].__name__}")
        return config

    @cached_property
    def _all_loaded(self) -> bool:
        if self.builtins:
            import_module(self.builtins)
        for point in entry_points(group=self.entry_point_group):
            self.register(point.load())
        return True

    def kinds(self) -> tuple[str, ...]:
        """All kinds, those of installed packages included."""
        return tuple(sorted(self._configs)) if self._all_loaded else ()

    def parse(self, value: object) -> ComponentConfig:
        """A config from a mapping with `kind`, from a bare kind, or from a config.

        Raises:
            UnknownComponentError: nobody registered the kind.
            ConfigError: a field is unknown or of a wrong type.
        """
        if isinstance(value, ComponentConfig):
            self._find(value.kind)
            return value
        if isinstance(value, str):
            value = {"kind": value}
        if not isinstance(value, Mapping) or not isinstance(value.get("kind"), str):
            raise ConfigError(f"a {self.sort} needs a kind; known: {', '.join(self.kinds())}")
        return self._find(value["kind"]).of(**value)

    def config_of(self, kind: str) -> type[ComponentConfig]:
        """The config class of a kind.

        Raises:
            UnknownComponentError: nobody registered it.
        """
        return self._find(kind)

    def has_field(self, kind: object, field: str) -> bool:
        """Whether components of a kind have a setting of that name; False for a kind that nobody registered."""
        return kind in self.kinds() and field in self._configs[str(kind)].model_fields

    def _find(self, kind: str) -> type[ComponentConfig]:
        if kind not in self._configs and kind not in self.kinds():
            raise UnknownComponentError(f"unknown {self.sort} kind {kind!r}; {choose_from(kind, self._configs)}")
        return self._configs[kind]

    def build(self, config: ComponentConfig, **context: object) -> Any:
        """The component, from its fields and what it needs of the others (`context`)."""
        target = type(config).implementation
        if isinstance(target, str):
            module, _, attribute = target.partition(":")
            target = attrgetter(attribute)(import_module(module))
        fields = {name: getattr(config, name) for name in type(config).model_fields if name != "kind"}
        return target(**fields, **context)


def describe(error: ValidationError, config: type[BaseModel]) -> str:
    """One line out of pydantic's many: each field and what is wrong with it."""
    lines = []
    for problem in error.errors():
        field = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            owner = _owner(config, problem["loc"][:-1])
            hint = choose_from(str(problem["loc"][-1]), owner.model_fields) if owner else ""
            lines.append(f"unknown field {field!r}; {hint}".rstrip("; "))
        else:
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{field}: {message}" if field else message)
    return "; ".join(lines)


def _owner(config: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The settings class that a field's path lies in."""
    for part in path:
        annotation = config.model_fields[str(part)].annotation if str(part) in config.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return None
        config = annotation
    return config


backbones = Registry("backbone", "sd4match.backbones", builtins="sd4match.backbones.config")
image_encoders = Registry("image encoder", "sd4match.image_encoders", builtins="sd4match.backbones.config")
prompts = Registry("prompt", "sd4match.prompts", builtins="sd4match.prompting.config")
matchers = Registry("matcher", "sd4match.matchers", builtins="sd4match.matching.config")
pair_transforms = Registry("pair transform", "sd4match.pair_transforms", builtins="sd4match.matching.config")
losses = Registry("loss", "sd4match.losses", builtins="sd4match.matching.config")
datasets = Registry("data set", "sd4match.datasets", builtins="sd4match.data.config")

AnyBackbone = Annotated[SerializeAsAny[ComponentConfig], BeforeValidator(backbones.parse)]
"""A field that holds a backbone's config, built-in or foreign; likewise below."""
AnyImageEncoder = Annotated[SerializeAsAny[ComponentConfig], BeforeValidator(image_encoders.parse)]
AnyPrompt = Annotated[SerializeAsAny[ComponentConfig], BeforeValidator(prompts.parse)]
AnyMatcher = Annotated[SerializeAsAny[ComponentConfig], BeforeValidator(matchers.parse)]
AnyPairTransform = Annotated[SerializeAsAny[ComponentConfig], BeforeValidator(pair_transforms.parse)]
AnyLoss = Annotated[SerializeAsAny[ComponentConfig], BeforeValidator(losses.parse)]
AnyDataset = Annotated[SerializeAsAny[ComponentConfig], BeforeValidator(datasets.parse)]
