"""Fingerprints of networks: short texts that are equal, up to a tolerance, for the same weights in another dtype."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from sd4match.errors import InputError, decimal_of, shown
from sd4match.hashing import arithmetic_config, digest

_SUMS = 16
"""Number of sums in a network's fingerprint."""
_SAMPLES = 4096
"""Number of values that are read from each tensor."""
_SMALL = 1e-4
"""Added to the size of a tensor, so that tensors of zeros have a logarithm."""
_TOLERANCE = 0.3
"""Largest difference of two numbers of the same weights; bfloat16 changes them by about 0.05."""
_WORD = re.compile(r"([a-z_]+):([0-9a-f]+):([-0-9.,]*)", re.ASCII)


def network_fingerprint(name: str, *networks: nn.Module, unused: Sequence[str] = (), config: object = None) -> str:
    """Return the fingerprint of networks that belong together: a digest of their config, and sums over all weights.

    Each tensor adds two terms to every sum, with a random sign: the logarithm of its size (root mean square), and a
    random projection of its values. A single tensor with a factor of 1.1, another sign or other values changes the
    sums.

    Args:
        name: name of the networks, in small letters.
        networks: complete networks, before any layer is removed.
        unused: patterns of names of tensors on which no result depends.
        config: further settings that must be the same; anything with a `repr`.

    >>> layer = nn.Linear(4, 4)
    >>> other = nn.Linear(4, 4)
    >>> _ = other.load_state_dict({name: value * 1.5 for name, value in layer.state_dict().items()})
    >>> one, two = network_fingerprint("layer", layer), network_fingerprint("layer", other)
    >>> same_weights(one, one), same_weights(one, two)
    (True, False)
    """
    tensors = [
        tensor
        for network in networks
        for key, tensor in sorted(network.state_dict().items())
        if tensor.is_floating_point() and tensor.numel() and not any(re.search(pattern, key) for pattern in unused)
    ]
    numbers = ",".join(f"{number:.3f}" for number in _sums(tensors).tolist())
    return f"{name}:{digest([arithmetic_config(network) for network in networks], config)[:12]}:{numbers}"


def schedule_fingerprint(alphas_cumprod: Tensor) -> str:
    """Return the fingerprint of a noise schedule, which consists of signal-to-noise ratios at some timesteps.

    Args:
        alphas_cumprod: (T,), abar_t in (0, 1) for every timestep.
    """
    timesteps = torch.linspace(0, len(alphas_cumprod) - 1, min(_SUMS, len(alphas_cumprod)), dtype=torch.float64)
    signal = alphas_cumprod.detach().cpu().double()[timesteps.round().long()]
    ratios = (signal.clamp_min(1e-8) / (1 - signal).clamp_min(1e-8)).log() * 100
    return f"schedule:{len(alphas_cumprod):x}:{','.join(f'{ratio:.3f}' for ratio in ratios.tolist())}"


def same_weights(fingerprint: str, other: str) -> bool:
    """Return whether two fingerprints are of the same networks, up to the effect of another dtype.

    Args:
        fingerprint: words of `network_fingerprint` or numbers, separated by spaces; or "unknown".
        other: likewise. Fingerprints with another number of words are different, and "unknown" equals none.

    Raises:
        InputError: one of them is no fingerprint.
    """
    words, others = _parse(fingerprint), _parse(other)
    return len(words) == len(others) > 0 and all(map(_same, words, others))


def abbreviated(fingerprint: str) -> str:
    """Return a short form of a fingerprint for display: name and digests of config and sums of each network.

    Args:
        fingerprint: any fingerprint.

    Raises:
        InputError: it is no fingerprint.

    >>> abbreviated("unet:0a1b2c3d4e5f:0.25,-1.5"), abbreviated("unknown")
    ('unet 0a1b2c3d-f7462797', 'unknown')
    """
    words = [
        f"{name} {config[:8]}-{digest(numbers)[:8]}" if name else str(*numbers)
        for name, config, numbers in _parse(fingerprint)
    ]
    return ", ".join(words) or fingerprint


def what_differs(fingerprint: str, other: str) -> list[str]:
    """Return the names of the networks in which two fingerprints differ; [] if that cannot be told.

    Args:
        fingerprint: any fingerprint.
        other: another one.

    Raises:
        InputError: one of them is no fingerprint.
    """
    words, others = _parse(fingerprint), _parse(other)
    names, other_names = ([name for name, _, _ in parsed] for parsed in (words, others))
    if names != other_names or "" in names:
        return []
    return [word[0] for word, its in zip(words, others, strict=True) if not _same(word, its)]


def _sums(tensors: Iterable[Tensor]) -> Tensor:
    """Return the sums, (16,), over all tensors, in float64."""
    tensors = list(tensors)
    signs, projections = _signs("tensors", len(tensors)), _signs("values", _SAMPLES)
    sums = torch.zeros(_SUMS, dtype=torch.float64)
    for tensor, sign in zip(tensors, signs, strict=True):
        flat = tensor.detach().reshape(-1)
        step = max(1, flat.numel() // _SAMPLES) | 1  # odd, to sample all rows and columns of a matrix
        values = flat[::step][:_SAMPLES].cpu().double()
        size = values.square().mean().sqrt() + _SMALL
        sums += sign * (4 * size.log() + values @ projections[: len(values)] / (size * len(values) ** 0.5))
    return sums


def _signs(name: str, count: int) -> Tensor:
    """Return random signs (count, 16), the same on all machines and with all versions of libraries."""
    content = np.frombuffer(hashlib.shake_128(name.encode()).digest(count * _SUMS // 8), np.uint8)
    return torch.from_numpy(np.unpackbits(content)).double().reshape(count, _SUMS) * 2 - 1


def _parse(fingerprint: str) -> list[tuple[str, str, list[float]]]:
    """Return name, digest and numbers of each word; name and digest are empty for a number, [] for an unknown one."""
    if fingerprint == "unknown":
        return []
    words = []
    try:
        for word in fingerprint.split():
            match = _WORD.fullmatch(word)
            name, config, numbers = match.groups() if match else ("", "", word)
            words.append((name, config, [decimal_of(number) for number in numbers.split(",")] if numbers else []))
    except ValueError:
        words = []
    if not words or not all(math.isfinite(number) for _, _, numbers in words for number in numbers):
        raise InputError(
            "a fingerprint is finite numbers or words like 'unet:0a1b2c:0.25,-1.5' separated by spaces, or 'unknown', "
            f"not {shown(fingerprint)}"
        )
    return words


def _same(word: tuple[str, str, list[float]], other: tuple[str, str, list[float]]) -> bool:
    (name, config, numbers), (other_name, other_config, others) = word, other
    if (name, config, len(numbers)) != (other_name, other_config, len(others)):
        return False
    relative, absolute = (0.0, _TOLERANCE) if name else (1e-2, 1e-5)
    return all(abs(a - b) <= relative * max(abs(a), abs(b)) + absolute for a, b in zip(numbers, others, strict=True))
