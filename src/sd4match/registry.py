"""Configs of components, and registries of built-in components and plugins.

A component is known by its sort ("matcher", "prompt", ...) and its kind ("kernel_soft_argmax", "single", ...). It has
one of two forms, and in both of them each parameter is declared once:

- A component without tensors *is* its config: a frozen pydantic model with a method.
- A component that loads weights or learns has a config whose `build` makes the component from the config.

Importing this module loads no torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, wraps
from importlib import import_module
from importlib.metadata import PackageNotFoundError, entry_points, packages_distributions, version
from inspect import Parameter, signature, unwrap
from types import ModuleType, NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Generic,
    Literal,
    Self,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
)

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    SerializeAsAny,
    ValidationError,
    create_model,
)
from pydantic.errors import PydanticUserError
from pydantic_core import CoreSchema, ErrorDetails
from pydantic_core.core_schema import no_info_before_validator_function

from sd4match.arguments import check_arguments
from sd4match.documents import check_extent
from sd4match.errors import ConfigError, UnknownComponentError, a, choose_from, shown

if TYPE_CHECKING:
    from sd4match.backbones.config import BackboneConfig, ImageEncoderConfig
    from sd4match.data.config import DatasetConfig
    from sd4match.interfaces import (
        Backbone,
        ImageEncoder,
        LossConfig,
        Matcher,
        MatchingLoss,
        NoiseEnsemble,
        PairDataset,
        PairTransform,
        Prompt,
    )
    from sd4match.prompting.config import PromptConfig

__all__ = [
    "AnyImageEncoder",
    "AnyMatcher",
    "Component",
    "Config",
    "PluginWarning",
    "Registry",
    "backbones",
    "datasets",
    "ensembles",
    "image_encoders",
    "losses",
    "matchers",
    "pair_transforms",
    "prompts",
    "register",
    "register_backbone",
    "register_dataset",
    "register_image_encoder",
    "register_loss",
    "register_matcher",
    "register_pair_transform",
    "register_prompt",
]


class PluginWarning(UserWarning):
    """Warning that an installed plugin cannot be imported or registered; everything else works without it."""


def _with_strict_leaves(schema: Any) -> Any:
    """Return a pydantic schema in which numbers, booleans and strings are not converted into one another."""
    if isinstance(schema, list):
        return [_with_strict_leaves(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: inner if key == "default" else _with_strict_leaves(inner) for key, inner in schema.items()}
    if strict.get("type") in ("int", "float", "bool", "str"):
        strict["strict"] = True
    if strict.get("type") == "literal" and any(isinstance(value, int) for value in strict["expected"]):
        return no_info_before_validator_function(_refuse_equal_numbers, strict)
    return strict


def _refuse_equal_numbers(value: object) -> object:
    """Return a value unless it is a bool or a float, which compare equal to whole numbers (True == 1.0 == 1)."""
    if isinstance(value, (bool, float)):
        raise ValueError(f"must be a whole number, not {shown(value)}")
    return value


class Config(BaseModel):
    """Base class of configs: frozen pydantic models that refuse unknown fields.

    Numbers, booleans and strings are not converted into one another: no bool for a number, no float for a whole number,
    no string for either. Numbers must be finite.

    Raises:
        ConfigError: a field is unknown, of a wrong type, or does not go with another one.

    >>> class Blur(Config):
    ...     sigma: float = 1.0
    >>> Blur(sigma=2).model_copy(update={"sigma": 0.5})
    Blur(sigma=0.5)
    >>> Blur(sigma="2")
    Traceback (most recent call last):
        ...
    sd4match.errors.ConfigError: sigma: must be a valid number, not '2'
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, /, **fields: Any) -> None:
        check_extent(fields, what=type(self).__name__, error=ConfigError)
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise ConfigError(describe(error, type(self))) from None

    # Nested configs are validated by pydantic itself, so that its errors keep the path to the field.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def model_validate(cls, obj: Any, *args: Any, **options: Any) -> Self:
        """Return a config from a mapping, or a config unchanged.

        Args:
            obj: mapping of field names to values, or a config of this class.
            args: further arguments of pydantic.
            options: further keyword arguments of pydantic.

        Raises:
            ConfigError: a field is unknown, of a wrong type, or does not go with another one.
        """
        check_extent(obj, what=cls.__name__, error=ConfigError)
        try:
            return super().model_validate(obj, *args, **options)
        except ValidationError as error:
            raise ConfigError(describe(error, cls)) from None

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, *args: Any, **options: Any) -> Self:
        """Return a config from JSON text.

        Args:
            json_data: a JSON object.
            args: further arguments of pydantic.
            options: further keyword arguments of pydantic.

        Raises:
            ConfigError: the text is no JSON object, or a field is unknown, of a wrong type, or does not go with another
                one.
        """
        try:
            return super().model_validate_json(json_data, *args, **options)
        except ValidationError as error:
            raise ConfigError(describe(error, cls)) from None

    @check_arguments
    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy in which some fields have other values, which are checked as in a new config.

        Args:
            update: values of the fields that differ, by name.
            deep: whether the values of the other fields are copied too.

        Raises:
            ConfigError: a field is unknown, of a wrong type, or does not go with another one.
        """
        copy = super().model_copy(deep=deep)
        return type(self).model_validate({**dict(copy), **update}) if update else copy

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema: CoreSchema = _with_strict_leaves(handler(source))
        return schema

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            raise ConfigError(f"{type(self).__name__} is frozen: make another one with {name}={shown(value)}")
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        raise ConfigError(f"{type(self).__name__} is frozen: {shown(name)} cannot be deleted")


class Component(Config):
    """Base class of configs of components. Subclasses fix `kind: Literal["..."] = "..."` and define `build`.

    >>> config = prompts.parse({"kind": "single", "num_tokens": 3})
    >>> isinstance(config, Component), config.kind, config.registry is prompts
    (True, 'single', True)
    """

    registry: ClassVar[Registry[Any, Any]]
    """Registry of the sort of component; set by the base class of each sort (`Matcher`, `PromptConfig`, ...)."""
    target: ClassVar[Any] = None
    """Class that `build` calls, for configs made from the signature of a class; otherwise None."""

    kind: Any
    """Name of the component; a subclass narrows it to a Literal, which type checkers allow for Any only."""

    def build(self, *args: Any, **context: Any) -> Any:
        """Build the component.

        Args:
            args: unused by the built-in sorts.
            context: keywords that the sort needs to be built, such as `backbone` for prompts.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define build")

    @classmethod
    def check_target(cls, target: Callable[..., Any]) -> None:
        """Check a class that is registered by its signature. Accepts all by default.

        Args:
            target: the class.

        Raises:
            ConfigError: the class does not have the interface of this sort.
        """

    def attach(self, built: Any, **context: Any) -> Any:
        """Complete a component at the end of `build`, also one built from a signature. By default, return it unchanged.

        Args:
            built: the component.
            context: keywords that `build` received.
        """
        return built


ComponentClass = TypeVar("ComponentClass", bound=type[Component])
ConfigT = TypeVar("ConfigT", bound=Component)
Built = TypeVar("Built")
Target = TypeVar("Target", bound=Callable[..., Any])


_PACKAGES: dict[str, str] = {}
"""Name and version of packages with entry points, by module: `packages_distributions` lacks editable installs."""


class Registry(Generic[ConfigT, Built]):
    """Registered kinds of one sort of component, generic in the types of their configs and components.

    Args:
        sort: name of the sort in messages, for example "matcher".
        group: entry-point group through which installed packages register their kinds.
        builtins: module whose import registers the kinds of this package.
        base: "module:class", the class that configs of this sort derive from.
        context: keywords that `build` receives and that are no fields of a config.
        required: parameters that a class must have to be registered by its signature.

    >>> "kernel_soft_argmax" in matchers.kinds()
    True
    >>> matchers.parse({"kind": "kernel_soft_argmax", "sigma": 5}).sigma
    5.0
    """

    def __init__(
        self,
        sort: str,
        group: str,
        *,
        builtins: str,
        base: str,
        context: tuple[str, ...] = (),
        required: tuple[str, ...] = (),
    ) -> None:
        self.sort = sort
        self.group = group
        self.builtins = builtins
        self.base = base
        self.context = context
        self.required = required
        self._classes: dict[str, type[ConfigT]] = {}
        self._left_out: list[str] = []
        self._is_loaded = False

    def register(self, config: ComponentClass) -> ComponentClass:
        """Register a config class by its kind; usable as a decorator.

        A class of the same module and name replaces the earlier one, so that a cell of a notebook can be run again.

        Args:
            config: subclass of the base class of this sort, with a fixed `kind`.

        Returns:
            The class unchanged.

        Raises:
            ConfigError: it is no config class of this sort, has no fixed kind, or its kind is taken.
        """
        if not (isinstance(config, type) and issubclass(config, Component)):
            raise ConfigError(f"only Component classes can be registered as {self.sort}, not {shown(config)}")
        if getattr(config, "registry", None) is not self:
            module, _, name = self.base.partition(":")
            raise ConfigError(f"{config.__name__} is no {self.sort}: derive it from {module}.{name}")
        kind = _kind_of(config)
        if kind is None:
            raise ConfigError(f'{config.__name__} needs a fixed kind: kind: Literal["name"] = "name"')
        self._load_builtins()  # so that built-in kinds count as taken
        known: type[Component] = self._classes.get(kind, cast(type[ConfigT], config))
        if known is not config and _origin(known) != _origin(config):
            module, name = _origin(known)
            raise ConfigError(f"the {self.sort} kind {kind!r} is taken by {name} of {module}")
        self._classes[kind] = cast(type[ConfigT], config)
        return config

    def register_class(self, kind: str) -> Callable[[Target], Target]:
        """Return a decorator that registers a class by a kind, with a config made from its signature.

        Every parameter of `__init__` but those of the context becomes a field, checked by its annotation.

        Args:
            kind: name of the component in configs.

        Returns:
            A decorator that returns the class unchanged, and raises the errors below about the class.

        Raises:
            ConfigError: the kind is empty or no text; a parameter has no annotation, is `*args` or `**kwargs`, or has a
                name that every config has; a required parameter is missing; the class does not have the interface of
                the sort; or the kind is taken.
        """
        if not isinstance(kind, str) or not kind.strip():
            raise ConfigError(f"the kind of {a(self.sort)} must be a name, not {shown(kind)}")

        def decorate(target: Target) -> Target:
            self._load_builtins()
            module, _, base_name = self.base.partition(":")
            parameters = _parameters(target, unread=self.context)
            fields: dict[str, Any] = {
                field: _field(parameter, target) for field, parameter in parameters.items() if field not in self.context
            }
            base: type[Component] = getattr(import_module(module), base_name)
            self._check_fields(target, fields, base)
            base.check_target(target)

            def build(self: Component, **context: Any) -> Any:
                own = {field: getattr(self, field) for field in fields}
                wanted = {key: value for key, value in context.items() if key in parameters}
                return self.attach(target(**own, **wanted), **context)

            create: Callable[..., type[Component]] = create_model
            name = f"{getattr(target, '__name__', kind)}Config"
            try:
                config = create(name, __base__=base, __doc__=target.__doc__, kind=(Literal[kind], kind), **fields)
            except (PydanticUserError, NameError, TypeError) as error:  # of an annotation, or of a field's name
                raise ConfigError(
                    f"{name}: a parameter cannot be read from YAML: {str(error).splitlines()[0]}"
                ) from None
            config.target, config.build = target, build  # type: ignore[method-assign]
            if isinstance(target, type):
                _keep_config(target, config, fields)
            self.register(config)
            return target

        return decorate

    def _check_fields(self, target: Callable[..., Any], fields: Mapping[str, Any], base: type[Component]) -> None:
        name = getattr(target, "__name__", repr(target))
        for field in fields:
            if field == "kind" or field[0] == "_" or (hasattr(base, field) and field not in base.model_fields):
                raise ConfigError(
                    f"{name}: a parameter of a component cannot be named {field!r}: every config has one, or it is "
                    "private"
                )
        for field in self.required:
            if field not in fields:
                raise ConfigError(f"{name}: {a(self.sort)} needs a parameter {field!r}")

    def unregister(self, kind: str) -> None:
        """Remove a kind.

        Args:
            kind: a registered kind.

        Raises:
            UnknownComponentError: the kind is not registered.
        """
        self._find(kind)
        del self._classes[kind]

    @contextmanager
    def temporarily(self) -> Iterator[None]:
        """Undo at the end of a block what was registered inside it, for tests."""
        self._load_all()
        before = dict(self._classes), list(self._left_out)
        try:
            yield
        finally:
            self._classes, self._left_out = before

    def _load_builtins(self) -> None:
        import_module(self.builtins)

    def _load_all(self) -> None:
        """Import the built-in kinds and those of installed packages, once."""
        self._load_builtins()
        if self._is_loaded:
            return
        self._is_loaded = True
        self._left_out += load_plugins(self.group, f"{self.sort} kinds", self._accept)

    def _accept(self, loaded: object, module: str) -> None:
        """Register the object of an entry point, if importing it has not registered it."""
        if isinstance(loaded, type) and issubclass(loaded, Component):
            self.register(loaded)
        elif not self._is_registered(loaded):
            raise ConfigError(f"{shown(loaded)} is no {self.sort}: it is not registered")

    def _is_registered(self, loaded: object) -> bool:
        """Return whether the object of an entry point is registered; of a module, whether any class in it is."""
        if isinstance(loaded, ModuleType):
            sources = {getattr(config.target or config, "__module__", None) for config in self._classes.values()}
            return loaded.__name__ in sources
        return any(config.target is loaded for config in self._classes.values())

    def kinds(self) -> tuple[str, ...]:
        """Return all kinds in alphabetical order, those of installed packages included."""
        self._load_all()
        return tuple(sorted(self._classes))

    def build(self, value: object, /, **context: Any) -> Built:
        """Build a component.

        Args:
            value: a kind, a mapping with `kind`, or a config.
            context: keywords that the sort needs: `backbone` for prompts and image encoders, `device` for backbones.

        Raises:
            UnknownComponentError: the kind is not registered.
            ConfigError: a field or the context is unknown, missing or of a wrong type.

        >>> matchers.build({"kind": "window_soft_argmax", "window": 5}).window
        5
        """
        config = self.parse(value)
        surplus = sorted(set(context) - set(self.context))
        if surplus:
            raise ConfigError(
                f"{surplus[0]} is no argument of build: fields go with the kind, "
                f"{{'kind': {config.kind!r}, {surplus[0]!r}: ...}}"
            )
        if "backbone" in self.context and "backbone" not in context:
            raise ConfigError(f"{a(self.sort)} is built for a backbone: give backbone=...")
        built: Built = config.build(**context)
        return built

    def package(self, kind: str) -> str:
        """Return name and version of the package that a kind comes from; its module if that is in no package.

        Args:
            kind: a registered kind.

        Raises:
            UnknownComponentError: the kind is not registered.

        >>> matchers.package("kernel_soft_argmax").split()[0]
        'sd4match'
        """
        module, _ = _origin(self._find(kind))
        return package_of(module)

    def left_out(self) -> tuple[str, ...]:
        """Return the reasons for which installed plugins could not be registered, one line for each."""
        self._load_all()
        return tuple(self._left_out)

    def parse(self, value: object, /) -> ConfigT:
        """Return the config of a component.

        Args:
            value: a kind, a mapping with `kind`, or a config, which is returned unchanged.

        Raises:
            UnknownComponentError: the kind is not registered.
            ConfigError: there is no kind, the config is of another sort, or a field is unknown or of a wrong type.
        """
        if isinstance(value, Component):
            if type(value).registry is not self:
                raise ConfigError(f"{type(value).__name__} is no {self.sort}")
            return cast(ConfigT, value)
        if isinstance(value, str):
            value = {"kind": value}
        if not isinstance(value, Mapping) or not isinstance(value.get("kind"), str):
            raise ConfigError(f"{a(self.sort)} needs a kind, not {shown(value)}; known: {', '.join(self.kinds())}")
        if not all(isinstance(name, str) for name in value):
            raise ConfigError(f"the fields of {a(self.sort)} must be names, not {shown(list(value))}")
        check_extent(value, what=f"the {self.sort}", error=ConfigError)
        return self._find(value["kind"])(**value)

    def config_class(self, kind: str) -> type[ConfigT]:
        """Return the config class of a kind.

        Args:
            kind: a registered kind.

        Raises:
            UnknownComponentError: the kind is not registered.
        """
        return self._find(kind)

    def has_field(self, kind: object, field: str) -> bool:
        """Return whether configs of a kind have a field; False for an unknown kind.

        Args:
            kind: any; usually a kind.
            field: name of the field.
        """
        return isinstance(kind, str) and kind in self.kinds() and field in self._classes[kind].model_fields

    def _find(self, kind: str) -> type[ConfigT]:
        if not isinstance(kind, str):
            raise ConfigError(f"the kind of {a(self.sort)} must be a name, not {shown(kind)}")
        if kind not in self._classes and kind not in self.kinds():
            reasons = "".join(f"; {reason}" for reason in self._left_out)
            known = choose_from(_short_name(kind), self._classes)
            raise UnknownComponentError(f"unknown {self.sort} kind {shown(kind)}; {known}{reasons}")
        return self._classes[kind]


def load_plugins(group: str, what: str, accept: Callable[[Any, str], object]) -> list[str]:
    """Import the objects of all entry points of a group, and pass them on.

    Args:
        group: of entry points.
        what: name of the plugins of the group in messages.
        accept: called with each object and its module; an error that it raises leaves the plugin out.

    Returns:
        The reasons for which plugins are left out, one line for each. Each is also a `PluginWarning`.
    """
    left_out = []
    for point in entry_points(group=group):
        distribution = getattr(point, "dist", None)
        try:
            if distribution is not None:
                _PACKAGES[point.module.partition(".")[0]] = f"{distribution.name} {distribution.version}"
            accept(point.load(), getattr(point, "module", ""))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a foreign package may do anything on import, even call sys.exit
            package = f" of package {distribution.name}" if distribution is not None else ""
            reason = f"plugin {point.name!r} ({point.value}){package} is left out of the {what}: "
            left_out.append(reason + _shown_error(error))
            warnings.warn(left_out[-1], PluginWarning, stacklevel=4)
    return left_out


@cache
def _packages_of_modules() -> Mapping[str, Sequence[str]]:
    """Return the packages of all installed modules. Cached, since reading them takes a second."""
    return packages_distributions()


def package_of(module: str) -> str:
    """Return name and version of the package of a module; the module if it is in no package.

    Args:
        module: dotted name.

    >>> package_of("sd4match.matching").split()[0]
    'sd4match'
    """
    top = module.partition(".")[0]
    if top in _PACKAGES:
        return _PACKAGES[top]
    packages = [top] if top == "sd4match" else _packages_of_modules().get(top, [])
    with suppress(PackageNotFoundError):
        return f"{packages[0]} {version(packages[0])}" if packages else module
    return module


def _shown_error(error: BaseException) -> str:
    """Return type and message of a foreign error in one line of bounded length."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # of a foreign `__str__`
        text = ""
    return f"{type(error).__name__}: {text[:200]}".rstrip(": ")


def _parameters(target: Callable[..., Any], *, unread: Collection[str]) -> Mapping[str, Parameter]:
    """Return the parameters of a class or function, with annotations as types except for those in `unread`."""
    try:
        found = signature(target).parameters
    except Exception as error:  # no class or function
        raise ConfigError(f"{shown(target)} has no signature that can be read: {_shown_error(error)}") from None
    made = getattr(target, "__init__", target) if isinstance(target, type) else target
    names = getattr(unwrap(made), "__globals__", {})
    return {
        name: parameter if name in unread else _with_type(parameter, names, target) for name, parameter in found.items()
    }


def _with_type(parameter: Parameter, names: Mapping[str, Any], target: Callable[..., Any]) -> Parameter:
    """Return a parameter with its annotation evaluated, if it is a string."""
    if not isinstance(parameter.annotation, str):
        return parameter
    try:
        return parameter.replace(annotation=eval(parameter.annotation, dict(names)))
    except Exception as error:
        raise ConfigError(
            f"{getattr(target, '__name__', target)}: the annotation {parameter.annotation!r} of parameter "
            f"{parameter.name!r} cannot be read ({_shown_error(error)}): a name that is imported for type checkers "
            "alone, or inside a function, is unknown at run time"
        ) from None


def _keep_config(target: Any, config: type[Component], fields: Mapping[str, Any]) -> None:
    """Wrap the `__init__` of a class so that objects built directly have a `config` too, and can be saved.

    Objects whose arguments no config can hold get none.
    """
    initialize = target.__init__

    @wraps(initialize)
    def initialize_and_keep(self: Any, *args: Any, **arguments: Any) -> None:
        initialize(self, *args, **arguments)
        if type(self) is target and getattr(self, "config", None) is None:
            bound = signature(initialize).bind(self, *args, **arguments).arguments
            with suppress(ConfigError, AttributeError):
                self.config = config(**{name: value for name, value in bound.items() if name in fields})

    target.__init__ = initialize_and_keep


def _origin(config: type[Component]) -> tuple[str, str]:
    """Return module and name of the class that a config is or builds."""
    made = config.target or config
    return getattr(made, "__module__", ""), getattr(made, "__qualname__", repr(made))


def _kind_of(config: type[Component]) -> str | None:
    """Return the fixed kind of a config class; None if it has none."""
    kind = config.model_fields["kind"].default
    return kind if isinstance(kind, str) and kind.strip() else None


def _field(parameter: Parameter, target: Callable[..., Any]) -> tuple[Any, Any]:
    """Return annotation and default of a parameter, as pydantic's `create_model` takes them."""
    name = getattr(target, "__name__", repr(target))
    if parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD, Parameter.POSITIONAL_ONLY):
        raise ConfigError(f"{name}: a config cannot be made of parameter {parameter}; give each a name")
    if parameter.annotation is Parameter.empty:
        raise ConfigError(f"{name}: parameter {parameter.name!r} needs an annotation, which becomes its field's type")
    return parameter.annotation, ... if parameter.default is Parameter.empty else parameter.default


MOST_PROBLEMS = 3
"""Number of problems of a config that one message names."""
_LONGEST_NAME = 80


def describe(error: ValidationError, config: type[BaseModel]) -> str:
    """Return pydantic's problems in one line: for each field, what it must be and what it is.

    Args:
        error: of pydantic.
        config: class whose fields were checked.
    """
    problems: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    for problem in error.errors(include_url=False):
        problems.setdefault(_field_path(config, problem["loc"]), []).append(problem)
    # A problem inside a value hides those of the value itself: its length, or other members of a union, do not matter.
    deepest = [path for path in problems if not any(path == other[: len(path)] != other for other in problems)]
    lines = [_problem_line(config, path, problems[path]) for path in deepest[:MOST_PROBLEMS]]
    if len(deepest) > MOST_PROBLEMS:
        lines.append(f"and {len(deepest) - MOST_PROBLEMS} more problems")
    return "; ".join(lines)


def _problem_line(config: type[BaseModel], path: tuple[int | str, ...], problems: Sequence[ErrorDetails]) -> str:
    field, last = ".".join(_short_name(name) for name in path), problems[0]
    if last["type"] == "extra_forbidden":
        owner = _inside(config, path[:-1])
        known = owner.model_fields if isinstance(owner, type) and issubclass(owner, BaseModel) else None
        hint = choose_from(_short_name(path[-1]), known) if known else ""
        return f"unknown field {field!r}; {hint}".rstrip("; ")
    own = [_message(problem) for problem in problems if problem["type"] in ("value_error", "missing")]
    wanted = [text.removeprefix("Input should be ") for text in map(_message, problems)]
    if own:
        message = own[0]
    elif last["type"] == "invalid_key":
        return f"the names of fields must be text, not {shown(path[-1])}"
    elif all(text != _message(problem) for text, problem in zip(wanted, problems, strict=True)):
        message = f"must be {' or '.join(dict.fromkeys(wanted))}, not {shown(last['input'])}"
    else:
        message = wanted[0]
    return f"{field}: {message}" if field else message


def _message(problem: ErrorDetails) -> str:
    """Return pydantic's message, in the words of YAML."""
    wanted = {"tuple_type": "a list", "dict_type": "a group of fields", "model_type": "a group of fields",
              "path_type": "a path"}.get(problem["type"])  # fmt: skip
    text = problem["msg"] if wanted is None else f"Input should be {wanted}"
    return text.removeprefix("Value error, ")


def _short_name(name: int | str) -> str:
    text = str(name)
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}..."


def _field_path(config: type[BaseModel], location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Return the path of a problem: pydantic's location without the members of unions that it tried."""
    for length, name in enumerate(location):
        if _inside(config, location[:length]) is Union:
            return (*location[:length], *(index for index in location[length:] if isinstance(index, int)))
        if name == "[key]":
            return location[:length]
    return location


def _inside(annotation: Any, path: tuple[int | str, ...]) -> Any:
    """Return the type at a path below an annotation: `Union` for one of several, None if it is not known."""
    members = [annotation]
    while get_origin(members[0]) in (Annotated, Union, UnionType):
        inner = get_args(members[0])
        is_annotated = get_origin(members[0]) is Annotated
        members = [inner[0]] if is_annotated else [member for member in inner if member is not NoneType]
        if len(members) > 1:
            return Union
    annotation = members[0]
    if not path:
        return annotation
    name, below = path[0], path[1:]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(name))
        return None if field is None else _inside(field.annotation, below)
    arguments = get_args(annotation)
    return _inside(arguments[-1 if get_origin(annotation) is dict else 0], below) if arguments else None


backbones: Registry[BackboneConfig, Backbone] = Registry(
    "backbone", "sd4match.backbones", builtins="sd4match.backbones.config",
    base="sd4match.backbones.config:BackboneConfig", context=("device",),
)  # fmt: skip
image_encoders: Registry[ImageEncoderConfig, ImageEncoder] = Registry(
    "image encoder", "sd4match.image_encoders", builtins="sd4match.backbones.config",
    base="sd4match.backbones.config:ImageEncoderConfig", context=("backbone",),
)  # fmt: skip
prompts: Registry[PromptConfig, Prompt] = Registry(
    "prompt", "sd4match.prompts", builtins="sd4match.prompting.config",
    base="sd4match.prompting.config:PromptConfig", context=("backbone", "initialize"),
)  # fmt: skip
matchers: Registry[Matcher, Matcher] = Registry(
    "matcher", "sd4match.matchers", builtins="sd4match.matching.matchers", base="sd4match.interfaces:Matcher"
)
pair_transforms: Registry[PairTransform, PairTransform] = Registry(
    "pair transform", "sd4match.pair_transforms", builtins="sd4match.matching.pair_transforms",
    base="sd4match.interfaces:PairTransform",
)  # fmt: skip
losses: Registry[LossConfig, MatchingLoss] = Registry(
    "loss", "sd4match.losses", builtins="sd4match.matching.losses", base="sd4match.interfaces:LossConfig"
)
ensembles: Registry[NoiseEnsemble, NoiseEnsemble] = Registry(
    "noise ensemble", "sd4match.ensembles", builtins="sd4match.backbones.ensembles",
    base="sd4match.interfaces:NoiseEnsemble",
)  # fmt: skip
datasets: Registry[DatasetConfig, PairDataset] = Registry(
    "data set", "sd4match.datasets", builtins="sd4match.data.config", base="sd4match.data.config:DatasetConfig",
    required=("split",),
)  # fmt: skip


def register(config: ComponentClass) -> ComponentClass:
    """Register a config class by its kind, in the registry of its base class; usable as a decorator.

    Args:
        config: subclass of `Matcher`, `PromptConfig` or another base class of components, with a fixed `kind`.

    Returns:
        The class unchanged.

    Raises:
        ConfigError: it is no component class, has no fixed kind, or its kind is taken.

    >>> from sd4match.matching import Matcher
    >>> with matchers.temporarily():
    ...     @register
    ...     class Nothing(Matcher):
    ...         kind: Literal["nothing"] = "nothing"
    ...         strength: float = 1.0
    ...     matchers.parse({"kind": "nothing", "strength": 2}).strength
    2.0
    """
    owner = getattr(config, "registry", None)
    if not isinstance(owner, Registry):
        raise ConfigError(f"{shown(config)} is no component: derive it from Matcher, PromptConfig, ...")
    return owner.register(config)


def register_backbone(kind: str) -> Callable[[Target], Target]:
    """Return a decorator that registers a `Backbone` class by a kind.

    The parameters of `__init__`, `device` aside, become the fields of its config and need annotations.

    Args:
        kind: name of the backbone in configs.

    Raises:
        ConfigError: as `Registry.register_class`.

    >>> from sd4match.testing import FakeBackbone
    >>> with backbones.temporarily():
    ...     @register_backbone("tinted")
    ...     class Tinted(FakeBackbone):
    ...         def __init__(self, *, side: int = 32) -> None:
    ...             super().__init__(side=side)
    ...     backbones.build({"kind": "tinted", "side": 64}).spec.native_size
    (64, 64)
    """
    return backbones.register_class(kind)


def register_image_encoder(kind: str) -> Callable[[Target], Target]:
    """Return a decorator that registers an `ImageEncoder` class by a kind.

    The parameters of `__init__`, `backbone` aside, become the fields of its config and need annotations.

    Args:
        kind: name of the image encoder in configs.

    Raises:
        ConfigError: as `Registry.register_class`.

    >>> from sd4match.testing import FakeImageEncoder
    >>> with image_encoders.temporarily():
    ...     @register_image_encoder("colors")
    ...     class Colors(FakeImageEncoder):
    ...         def __init__(self, *, scale: float = 1.0) -> None:
    ...             super().__init__()
    ...             self.scale = scale
    ...     image_encoders.parse({"kind": "colors", "scale": 2}).scale
    2.0
    """
    return image_encoders.register_class(kind)


def register_prompt(kind: str) -> Callable[[Target], Target]:
    """Return a decorator that registers a `Prompt` class by a kind.

    The parameters of `__init__`, `backbone` aside, become the fields of its config and need annotations. A parameter
    `initialize`, if there is one, is False when a saved state dict is loaded next.

    Args:
        kind: name of the prompt in configs and prompt files.

    Raises:
        ConfigError: as `Registry.register_class`.

    >>> from sd4match.prompting import Prompt
    >>> with prompts.temporarily():
    ...     @register_prompt("constant")
    ...     class Constant(Prompt):
    ...         def __init__(self, *, backbone, value: float = 0.5) -> None:
    ...             super().__init__()
    ...             self.value = value
    ...     prompts.parse({"kind": "constant", "value": 2}).value
    2.0
    """
    return prompts.register_class(kind)


def register_matcher(kind: str) -> Callable[[Target], Target]:
    """Return a decorator that registers a matcher class by a kind, for example a `torch.nn.Module`.

    The parameters of `__init__` become the fields of its config and need annotations. A matcher without tensors can
    also derive from `Matcher`, which is its own config; see `register`.

    Args:
        kind: name of the matcher in configs.

    Raises:
        ConfigError: as `Registry.register_class`.

    >>> from sd4match.matching import SoftArgmax
    >>> with matchers.temporarily():
    ...     @register_matcher("soft")
    ...     class Soft:
    ...         def __init__(self, temperature: float = 0.1) -> None:
    ...             self.temperature = temperature
    ...         def __call__(self, correlation):
    ...             return SoftArgmax(temperature=self.temperature)(correlation)
    ...     matchers.build({"kind": "soft", "temperature": 0.5}).temperature
    0.5
    """
    return matchers.register_class(kind)


def register_pair_transform(kind: str) -> Callable[[Target], Target]:
    """Return a decorator that registers a pair-transform class by a kind, for example a `torch.nn.Module`.

    The parameters of `__init__` become the fields of its config and need annotations.

    Args:
        kind: name of the transform in configs.

    Raises:
        ConfigError: as `Registry.register_class`.

    >>> with pair_transforms.temporarily():
    ...     @register_pair_transform("swapped")
    ...     class Swapped:
    ...         def __call__(self, source, target):
    ...             return target, source
    ...     pair_transforms.build("swapped")("source", "target")
    ('target', 'source')
    """
    return pair_transforms.register_class(kind)


def register_loss(kind: str) -> Callable[[Target], Target]:
    """Return a decorator that registers a loss class by a kind.

    The parameters of `__init__` become the fields of its config and need annotations.

    Args:
        kind: name of the loss in configs.

    Raises:
        ConfigError: as `Registry.register_class`.

    >>> with losses.temporarily():
    ...     @register_loss("constant")
    ...     class Constant:
    ...         def __init__(self, value: float = 0.0) -> None:
    ...             self.value = value
    ...         def __call__(self, correlation, targets):
    ...             return correlation.values.new_tensor(self.value)
    ...     losses.build({"kind": "constant", "value": 3}).value
    3.0
    """
    return losses.register_class(kind)


def register_dataset(kind: str) -> Callable[[Target], Target]:
    """Return a decorator that registers a `PairDataset` class by a kind.

    The parameters of `__init__`, of which one must be `split`, become the fields of its config and need annotations.

    Args:
        kind: name of the data set in configs.

    Raises:
        ConfigError: as `Registry.register_class`.

    >>> from sd4match.testing import FakePairs
    >>> with datasets.temporarily():
    ...     @register_dataset("noise")
    ...     class Noise(FakePairs):
    ...         def __init__(self, *, split: str = "test", pairs: int = 6) -> None:
    ...             super().__init__(split=split, pairs=pairs)
    ...     len(datasets.build({"kind": "noise", "split": "test", "pairs": 2}))
    2
    """
    return datasets.register_class(kind)


def packages_of(value: object) -> tuple[str, ...]:
    """Return the packages besides sd4match that the components in a config come from, in alphabetical order.

    Args:
        value: config, or mapping or sequence of configs.

    >>> packages_of(matchers.parse("mutual"))
    ()
    """
    found: set[str] = set()
    if isinstance(value, Component):
        package = type(value).registry.package(value.kind)
        found |= {package} if package.split()[0] != "sd4match" else set()
    if isinstance(value, BaseModel):
        found.update(*(packages_of(getattr(value, name)) for name in type(value).model_fields))
    elif isinstance(value, Mapping):
        found.update(*map(packages_of, value.values()))
    elif isinstance(value, (list, tuple)):
        found.update(*map(packages_of, value))
    return tuple(sorted(found))


REGISTRIES = (matchers, losses, pair_transforms, prompts, backbones, image_encoders, ensembles, datasets)
"""Registries of all sorts of components."""

AnyImageEncoder = Annotated[SerializeAsAny[Component], BeforeValidator(image_encoders.parse)]
"""Config field that holds the config of an image encoder, of this package or of a plugin."""
AnyMatcher = Annotated[SerializeAsAny[Component], BeforeValidator(matchers.parse)]
"""Config field that holds a matcher, of this package or of a plugin."""
