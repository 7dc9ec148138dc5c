"""Simulated accelerator, whose tensors are computed on the CPU and have the restrictions of GPU tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

NAME = "pretend"
"""Type of the device, for example in `device="pretend"`."""

_aten = torch.ops.aten
_COPIES = {_aten.copy_.default, _aten._to_copy.default}
"""Operations between two devices."""
_INDEXING = {_aten.index.Tensor, _aten.index_put_.default, _aten.index_put.default, _aten._unsafe_index.Tensor}
"""Operations whose indices may be on the CPU."""
_ANSWERED_ON_THE_HOST = {_aten._local_scalar_dense.default, _aten.equal.default, _aten.is_same_size.default}
_SUBSCRIPTS = {torch.Tensor.__getitem__, torch.Tensor.__setitem__}
_MADE_BELOW_THE_DISPATCHER = {torch.tensor, torch.as_tensor, torch.asarray}


class PretendTensor(torch.Tensor):
    """Tensor on the device `pretend:0`, with its values in a tensor on the CPU."""

    held: Tensor
    """Tensor on the CPU."""

    @staticmethod
    def __new__(cls, held: Tensor, requires_grad: bool = False) -> PretendTensor:
        """Return a tensor of the same shape, strides and dtype as `held`."""
        made: PretendTensor = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=torch.device(NAME, 0), requires_grad=requires_grad,
        )  # fmt: skip
        made.held = held
        return made

    def __repr__(self) -> str:  # type: ignore[override] # torch declares an argument of its own
        return f"PretendTensor({self.held})"

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(held: Mapping[str, Tensor], context: None, size: Any, stride: Any) -> PretendTensor:
        return PretendTensor(held["held"])

    def numpy(self, *, force: bool = False) -> Any:
        """Raise a TypeError as a GPU tensor does, unless `force` is true."""
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy; use Tensor.cpu() first")

    @classmethod
    def __torch_dispatch__(  # type: ignore[override] # torch declares it without the class
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operation on the CPU tensors."""
        return _run(func, args, kwargs or {})


def _is_pretend(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _map_tensors(function: Callable[[Tensor], Tensor], values: Any) -> Any:
    """Apply a function to all tensors in nested lists and tuples."""
    if isinstance(values, Tensor):
        return function(values)
    if isinstance(values, (list, tuple)):
        return type(values)([_map_tensors(function, each) for each in values])
    return values


def _held(values: Any) -> Any:
    return _map_tensors(lambda tensor: getattr(tensor, "held", tensor), values)


def _pretend(values: Any) -> Any:
    return _map_tensors(lambda each: each if isinstance(each, PretendTensor) else PretendTensor(each), values)


def _index(index: Any) -> Any:
    """Return an index with lists as tensors, since torch would move them to the device below the dispatcher."""
    if isinstance(index, tuple):
        return tuple(_index(each) for each in index)
    return torch.tensor(index) if isinstance(index, list) else index


def _tensors(values: Any) -> Iterator[Tensor]:
    """Yield all tensors among the arguments of an operation."""
    for each in values:
        if isinstance(each, Tensor):
            yield each
        elif isinstance(each, (list, tuple)):
            yield from _tensors(each)


def _run(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run an operation of the dispatcher on the CPU, and return its result on the device where it would be.

    Raises:
        RuntimeError: the operation mixes tensors of both devices, other than numbers and indices.
    """
    tensors = [*_tensors(args), *_tensors(kwargs.values())]
    here = [each for each in tensors if isinstance(each, PretendTensor)]
    device = kwargs.get("device")
    if not here and device is None:
        return func(*args, **kwargs)
    if here and func not in _COPIES:
        if func in _INDEXING:
            if not isinstance(tensors[0], PretendTensor):
                raise RuntimeError(f"indices should be on the CPU or on the device of the indexed tensor ({func})")
        elif any(each.dim() and not isinstance(each, PretendTensor) for each in tensors):
            raise RuntimeError(f"expected all tensors to be on the same device, but found {NAME}:0 and cpu ({func})")
    if func is _aten.detach.default:
        return PretendTensor(here[0].held.detach())
    options = {name: _held(value) for name, value in kwargs.items()}
    answer_is_here = bool(here) and func not in _ANSWERED_ON_THE_HOST
    if device is not None:
        answer_is_here, options["device"] = _is_pretend(device), torch.device("cpu")
    if "pin_memory" in options:
        options["pin_memory"] = False
    plain = _held(args)
    answer = func(*plain, **options)
    in_place = func._schema.name.endswith("_") and not func._schema.name.endswith("__")
    if args and isinstance(args[0], Tensor) and (in_place or answer is plain[0]):
        return args[0]
    return _pretend(answer) if answer_is_here else answer


class _Dispatched(TorchDispatchMode):
    """Mode that handles operations without a tensor of the device among their arguments, such as `torch.zeros`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Called(TorchFunctionMode):
    """Mode that handles functions that do not go through the dispatcher."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        first = args[0] if args else None
        if func in _MADE_BELOW_THE_DISPATCHER and _is_pretend(kwargs.get("device")):
            return PretendTensor(func(*_held(args), **{**kwargs, "device": "cpu"}).detach())
        if (
            func is torch.Tensor.new_tensor
            and isinstance(first, Tensor)
            and _is_pretend(kwargs.get("device", first.device))
        ):
            return PretendTensor(func(_held(first), *args[1:], **{**kwargs, "device": "cpu"}))
        if isinstance(first, PretendTensor) and func is torch.Tensor.__deepcopy__:
            return PretendTensor(first.held.detach().clone(), first.requires_grad)
        if isinstance(first, PretendTensor) and func in _SUBSCRIPTS:
            args = (first, _index(args[1]), *args[2:])
        if isinstance(first, PretendTensor) and func is torch.Tensor.tolist:
            return first.held.tolist()
        try:
            return func(*args, **kwargs)
        except RuntimeError as error:
            if "device_ready_queues_" not in str(error):
                raise
            raise RuntimeError(
                "torch counted the devices at the first backward() of this process, before one was pretended: enter "
                "pretend_accelerator() once before it, for example in conftest.py"
            ) from None


@cache
def _register() -> None:
    """Register the device with torch, once in a process."""
    register = getattr(backend_registration, "_setup_privateuseone_for_python_backend", None)
    if register is None:
        raise RuntimeError(f"torch {torch.__version__} cannot pretend a device: install torch 2.10 or newer")
    register(NAME)
    torch.get_device_module(NAME).get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]


@contextmanager
def pretend_accelerator() -> Iterator[torch.device]:
    """Simulate an accelerator, a device of the type "pretend", inside a context.

    Like GPU tensors, its tensors raise errors when they are combined with CPU tensors, other than numbers and indices,
    and on `numpy()`. They are computed on the CPU, with the same results. A test thus finds a missing `.to(device)`
    without a GPU.

    The device has no autocast, no streams and no memory statistics. Modules that were moved to it cannot be used after
    the context. torch counts devices at the first `backward()` of a process, so enter the context once before that.

    Raises:
        RuntimeError: torch is too old, or there is a CUDA device, whose `backward()` would break next to a second
            accelerator.

    >>> with pretend_accelerator() as device:
    ...     x = torch.ones(2, device=device)
    ...     print(x.device, float(x.sum()))
    pretend:0 2.0
    """
    if torch.cuda.is_available():  # with a second accelerator, an assertion of torch fails in backward()
        raise RuntimeError("torch sees a CUDA device: use it, or hide it with CUDA_VISIBLE_DEVICES= to pretend one")
    _register()
    future = torch.__future__
    before = future.get_swap_module_params_on_conversion()
    future.set_swap_module_params_on_conversion(True)  # a parameter's data cannot change its class in place
    try:
        with _Dispatched(), _Called():
            yield torch.device(NAME, 0)
    finally:
        future.set_swap_module_params_on_conversion(before)
