"""Functions that the checks share: promises, inputs, and checks of devices, gradients and state."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import numpy.typing as npt
import torch
from torch import Tensor, nn

from sd4match.documents import parse_json, parse_yaml, to_yaml
from sd4match.errors import InputError, a, shown
from sd4match.geometry import Grid, Size, squash_frame
from sd4match.interfaces import Backbone, ImageEncoder, Learned, Prepare, evaluation_mode
from sd4match.interfaces.calls import describe_component
from sd4match.registry import Component, Registry
from sd4match.structures.images import Photo, View
from sd4match.structures.tensors import FeatureMap, ParameterGroup
from sd4match.testing.accelerator import pretend_accelerator
from sd4match.testing.fakes import random_photo

SIZES = ((40, 60), (70, 30), (50, 50))
"""(H, W) of the photos of every check: landscape, portrait, square."""
THREADS = 4

Answer = TypeVar("Answer")
ConfigT = TypeVar("ConfigT", bound=Component)


def hold(condition: bool | Tensor, promise: str) -> None:
    """Check a condition.

    Args:
        condition: whether the promise is kept.
        promise: message of the error.

    Raises:
        AssertionError: the condition is false.
    """
    if not condition:
        raise AssertionError(promise)


@contextmanager
def promising(promise: str) -> Iterator[None]:
    """Turn an error of a component inside the block into an AssertionError with a promise.

    Args:
        promise: message of the error.
    """
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:  # a component may raise any
        raise AssertionError(f"{promise}; it raised {_described(error)}") from error


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def ask(promise: str, function: Callable[..., Any], *arguments: object, kind: type[Answer]) -> Answer:
    """Call a function of a component and check the type of its result.

    Args:
        promise: message if the function fails or returns another type.
        function: function of the component.
        arguments: arguments of the call.
        kind: type of the result.

    Raises:
        AssertionError: the function raises an error, or returns another type.
    """
    with promising(promise):
        answer = function(*arguments)
    if not isinstance(answer, kind):
        raise AssertionError(f"{promise}: {a(kind.__name__)}, not {shown(answer)}")
    return answer


@contextmanager
def untouched(name: str, *values: Tensor | npt.NDArray[Any] | None) -> Iterator[None]:
    """Check that arrays and tensors have the same values after the block.

    Args:
        name: name of the component in messages.
        values: arrays and tensors; None is ignored.
    """
    given = [value for value in values if value is not None]
    before = [value.detach().clone() if isinstance(value, Tensor) else value.copy() for value in given]
    yield
    same = (equal(torch.as_tensor(now), torch.as_tensor(then)) for now, then in zip(given, before, strict=True))
    hold(all(same), f"{name} must not change its inputs in place")


def equal(found: Tensor, expected: Tensor) -> bool:
    """Return whether two tensors hold the same numbers; NaN is equal to NaN.

    Args:
        found: any shape.
        expected: any shape.
    """
    if found.shape != expected.shape:
        return False
    return bool(((found == expected) | ((found != found) & (expected != expected))).all())


def close(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Return whether two tensors are equal up to a tolerance.

    Args:
        found: any shape.
        expected: any shape.
        tolerance: largest difference, relative to the largest expected number.
    """
    if found.shape != expected.shape or found.numel() == 0:
        return found.shape == expected.shape
    found, expected = (value.detach().cpu().double() for value in (found, expected))
    return bool(((found - expected).abs() <= tolerance * max(float(expected.abs().max()), 1e-6)).all())


def config_of(registry: Registry[ConfigT, Any], value: object) -> ConfigT:
    """Return a config from a config, a registered class, a kind, or a mapping.

    Args:
        registry: registry of the sort.
        value: anything that `Registry.parse` takes, or a class.

    Raises:
        InputError: the class is not registered.
        ConfigError: a required field is missing, or there is no such kind.
    """
    if not isinstance(value, type):
        return registry.parse(value)
    for kind in registry.kinds():
        config = registry.config_class(kind)
        if value in (config, config.target):
            return registry.parse(kind)
    raise InputError(f"{shown(value)} is no registered {registry.sort}: register the class, or give what it builds")


def built(registry: Registry[Any, Any], value: Any) -> Any:
    """Return a component, built if a config, a registered class or a kind is given.

    Args:
        registry: registry of the sort.
        value: the component, or anything that `config_of` takes.

    Raises:
        InputError: it is none of these.
        ConfigError: a required field is missing, or there is no such kind.
    """
    if isinstance(value, (Component, type, str, Mapping)):
        return config_of(registry, value).build()
    if not callable(value):
        raise InputError(f"{a(registry.sort)} must be a component, a function, or a config or kind, not {shown(value)}")
    return value


def check_own_config(component: Any) -> None:
    """Check the config of a component, if it has one or is one.

    Args:
        component: any.
    """
    config = component if isinstance(component, Component) else getattr(component, "config", None)
    if isinstance(config, Component):
        check_config(config)


def check_config(config: Component) -> None:
    """Check that a config is the same after it was written to JSON and YAML and read again.

    Args:
        config: config of any sort.
    """
    registry = type(config).registry
    known = config.kind in registry.kinds() and registry.config_class(config.kind) is type(config)
    parse: Callable[[Any], Component] = registry.parse if known else type(config).model_validate
    promise = f"the config of the {registry.sort} {config.kind!r} must be read from JSON and YAML as it was written"
    with promising(promise):
        fields = config.model_dump(mode="json")
        again = (parse_json(json.dumps(fields), what="JSON"), parse_yaml(to_yaml(fields), what="YAML"))
        hold(all(parse(each) == config for each in again), promise)


def some_photos() -> list[Photo]:
    """Return three photos of noise, of different shapes."""
    return [random_photo(size, seed=seed) for seed, size in enumerate(SIZES)]


def some_maps(
    channels: int, groups: tuple[int, ...] = (), *, size: Size, seed: int, scale: int = 1, last: int = len(SIZES)
) -> FeatureMap:
    """Return random maps of up to three photos.

    Args:
        channels: number of channels.
        groups: channel groups.
        size: (h, w) of the maps.
        seed: seed of their values.
        scale: factor of the sizes of the photos.
        last: number of photos.
    """
    frames = tuple(squash_frame((height * scale, width * scale), (size[0] * 8, size[1] * 8)) for height, width in SIZES)
    sides = frames if seed % 2 else frames[::-1]  # source and target are of different shapes
    values = torch.randn(len(SIZES), channels, *size, generator=torch.Generator().manual_seed(seed))
    return FeatureMap(values[:last], Grid(sides[:last], size), groups)


def check_prepare(name: str, prepare: Prepare, photos: Sequence[Photo]) -> list[View]:
    """Check that preprocessing depends on the photo alone and can run in several threads.

    Args:
        name: name of the component in messages.
        prepare: preprocessing function.
        photos: photos to prepare.

    Returns:
        The view of each photo.
    """
    views = []
    for photo in photos:
        with untouched(f"prepare of {name}", photo.pixels):
            view = ask(f"{name} must prepare any photo", prepare, photo, kind=View)
        hold(view.frame.original_size == photo.size, "a view's frame must say the photo's size")
        hold(view.key == photo.key, "a view must carry its photo's key")
        hold(view.pixels.shape[1:] == view.frame.model_size, "a view's frame must say the view's size")
        hold(view.pixels.isfinite().all(), f"{name} must prepare pixels that are finite")
        views.append(view)
    digests = [view.digest for view in views]
    with promising(f"{name} must prepare a photo again"):
        again = [prepare(photo).digest for photo in photos]
    hold(again == digests, f"what {name} prepares must depend on the photo alone, not on those before it")
    with promising(f"{name} must prepare photos in several threads"), ThreadPoolExecutor(THREADS) as pool:
        found = [view.digest for view in pool.map(prepare, [*photos] * THREADS)]
    hold(found == digests * THREADS, f"{name} must prepare photos in several threads at once as it does one by one")
    return views


def check_frozen(name: str, network: nn.Module) -> None:
    """Check that no weight of a network requires a gradient.

    Args:
        name: name of the component in messages.
        network: network to check.
    """
    learning = [parameter for parameter, value in network.named_parameters() if value.requires_grad]
    hold(not learning, f"the weights of {name} must be frozen, and {learning[:1]} has requires_grad = True")


def check_digest(name: str, network: Backbone | ImageEncoder) -> None:
    """Check that the digest, by which results are cached on disk, changes with the weights.

    Args:
        name: name of the component in messages.
        network: network to check.
    """
    with promising(f"{name} must return a weights_digest, or None"):
        found = network.weights_digest()
        hold(found is None or isinstance(found, str), f"the weights_digest of {name} must be a text or None")
        hold(network.weights_digest() == found, f"the weights_digest of {name} must be the same at every call")
    other = copied(network) if found is not None else None
    weights = [] if other is None else [value for value in other.parameters() if value.is_floating_point()]
    if other is not None and weights:
        with torch.no_grad():
            for value in weights:
                value.add_(1)
        hold(other.weights_digest() != found, f"the weights_digest of {name} must be another for other weights")


def copied(component: Answer) -> Answer | None:
    """Return a copy of a component; None if it cannot be copied.

    Args:
        component: any.
    """
    try:
        return copy.deepcopy(component)
    except Exception:  # some attributes cannot be copied
        return None


@contextmanager
def accelerator() -> Iterator[torch.device]:
    """Yield CUDA's current device without TF32, or a simulated device if there is no CUDA."""
    if torch.cuda.is_available():
        with torch.backends.cudnn.flags(allow_tf32=False):
            yield torch.device("cuda", torch.cuda.current_device())
    else:
        with pretend_accelerator() as device:
            yield device


def check_device(
    name: str, component: Any, compute: Callable[[Any, torch.device], Mapping[str, Tensor]],
    expected: Mapping[str, Tensor], *, tolerance: float,
) -> None:  # fmt: skip
    """Check a component on an accelerator, CUDA or a simulated one. Components that cannot be copied are not checked.

    Args:
        name: name of the component in messages.
        component: component of which a copy is moved, if it is a module.
        compute: function that returns results of the moved component by name.
        expected: results on the CPU by name.
        tolerance: largest difference relative to the largest number; at least 1e-3 on CUDA.
    """
    other = copied(component)
    with ExitStack() as stack:
        try:
            device = stack.enter_context(accelerator())
        except RuntimeError:  # torch is too old
            return
        if other is None and component is not None:
            return
        try:
            Learned("component", other).to(device)
            with torch.no_grad():
                found = dict(compute(other, device))
        except Exception as error:  # a component may raise any
            promise = f"{name} must compute on the device that it is moved to: register its tensors as buffers"
            raise AssertionError(f"{promise}; it raised {_described(error.__cause__ or error)}") from error
        for what, value in found.items():
            where = value.device
            hold(
                value.numel() == 0 or where == device,
                f"the {what} of {name} must be on the device of its inputs, {device}, not on {where}",
            )
            hold(
                close(value, expected[what], max(tolerance, 1e-3) if device.type == "cuda" else tolerance),
                f"the {what} of {name} must be the same numbers on every device",
            )


def has_tensors(network: nn.Module) -> bool:
    """Return whether a network has tensors that `to` moves.

    Args:
        network: any.

    Raises:
        AssertionError: its only tensors are plain attributes, which `to` does not move.
    """
    if any(True for _ in (*network.parameters(), *network.buffers())):
        return True
    plain = [key for module in network.modules() for key, value in vars(module).items() if isinstance(value, Tensor)]
    hold(
        not plain, f"{describe_component('network', network)} must register {plain[:1]} as a buffer, or `to` leaves it"
    )
    return False


def learned(component: object) -> list[nn.Parameter]:
    """Return the parameters of a component that a training learns.

    Args:
        component: any.
    """
    groups = Learned("component", component).parameter_groups()
    return [parameter for group in groups for parameter in group.parameters]


def change(component: Any) -> None:
    """Add a little noise to all learned parameters.

    Args:
        component: any.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in learned(component):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator).to(parameter))


def check_learned(name: str, component: Any, compute: Callable[[], Tensor]) -> None:
    """Check groups, gradients and logged values of a component, also of one that does not learn.

    Args:
        name: name of the component in messages.
        component: any.
        compute: function that returns a number which depends on all learned parameters.
    """
    view = Learned("component", component)
    own = dict(view.module.named_parameters()) if view.module is not None else {}
    with promising(f"{name} must return its parameter_groups and log_values"):
        groups, logged = view.parameter_groups(), dict(view.log_values())
    hold(
        all(isinstance(group, ParameterGroup) for group in groups),
        f"parameter_groups of {name} must return groups of the type ParameterGroup",
    )
    names = {id(value): key for key, value in own.items()}
    listed = [parameter for group in groups for parameter in group.parameters]
    for group in groups:
        for parameter in group.parameters:
            key = names.setdefault(id(parameter), f"{group.name}, {tuple(parameter.shape)}")
            hold(parameter.requires_grad, f"{name} lists {key} in parameter_groups, which has requires_grad = False")
            hold(
                view.module is None or key in own,
                f"{name} lists {key} in parameter_groups, which is not in its state_dict, so that it is never saved",
            )
    hold(len({*map(id, listed)}) == len(listed), f"parameter_groups of {name} must list each parameter once")
    in_groups = {id(parameter) for parameter in listed}
    missed = [key for key, value in own.items() if value.requires_grad and id(value) not in in_groups]
    hold(not missed, f"parameter_groups of {name} must hold all that learns, and misses {missed[:1]}")
    if listed:
        value = compute()
        gradients = (
            torch.autograd.grad(value, listed, allow_unused=True) if value.requires_grad else [None] * len(listed)
        )
        for parameter, gradient in zip(listed, gradients, strict=True):
            hold(gradient is not None, f"{name} learns {names[id(parameter)]}, and no gradient reaches it")
            finite = gradient is None or gradient.isfinite().all()
            hold(finite, f"the gradient of {names[id(parameter)]} of {name} must be finite")
        moves = any(gradient is not None and bool(gradient.any()) for gradient in gradients)
        hold(moves, f"{name} must learn something, and all its gradients are zero")
    with promising(f"{name} must return its log_values"):
        again = dict(view.log_values())
    hold(list(logged) == list(again), f"log_values of {name} must always have the same names")
    hold(
        all(isinstance(value, (int, float)) and isinstance(key, str) for key, value in again.items()),
        f"log_values of {name} must be numbers by name",
    )


def check_state(name: str, component: Any, compute: Callable[[Any], Tensor]) -> None:
    """Check that the state dict holds all learned parameters of a component.

    Args:
        name: name of the component in messages.
        component: any; components that learn nothing or cannot be copied are not checked.
        compute: function that returns a result of a component.
    """
    other = copied(component) if learned(component) else None
    if other is None:
        return
    view = Learned("component", other)
    promise = f"state_dict and load_state_dict of {name} must restore all that it learns"
    with promising(promise), torch.no_grad(), evaluation_mode(other):
        change(other)
        expected = compute(other).clone()
        state = {key: value.detach().clone() for key, value in view.state_dict().items()}
        change(other)
        view.load_state_dict(state)
        hold(equal(compute(other), expected), promise)
