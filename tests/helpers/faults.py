"""Components that break one promise each: by sort, the fault, how it is made, and what the check says of it."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import nn

from sd4match.errors import InputError
from sd4match.geometry import Grid, pad_frame
from sd4match.interfaces import Matcher, MatchingLoss, PairTransform, Prompt
from sd4match.matching.correlation import matches_from_cells
from sd4match.matching.losses import EndPointError
from sd4match.matching.matchers import KernelSoftArgmax, NearestNeighbor
from sd4match.prompting.tokens import encode_token_vectors
from sd4match.registry import register_prompt
from sd4match.structures.images import Photo
from sd4match.structures.tensors import (
    FeatureMap,
    ImageFeatures,
    LossValue,
    Matches,
    ParameterGroup,
    PromptEmbedding,
    TrainingNoise,
)
from sd4match.testing import FakeBackbone, FakeImageEncoder, FakePairs, FakeTextEncoder


def subclass(base, *, start=None, **members):
    """Return an instance of a class named Faulty, with some members, after `start` was called with it."""
    made = type("Faulty", (base,), members)()
    if start is not None:
        start(made)
    return made


# Backbones ------------------------------------------------------------------------------------------------------------


class Good(FakeBackbone):
    def __init__(self):
        super().__init__(text_encoder=FakeTextEncoder())


def extracts(change, **members):
    """A backbone whose values are changed by a function of itself, the values, encoded photos, prompt and sampling."""

    def extract(self, encoded, prompt, sampling):
        made = Good.extract(self, encoded, prompt, sampling)
        return replace(made, values=change(self, made.values, encoded, prompt, sampling))

    return lambda: subclass(Good, extract=extract, **members)


def specifies(**fields):
    def start(self):
        self.spec = replace(self.spec, **fields)

    return lambda: subclass(Good, start=start)


def prepares(change, base=Good):
    """A network whose views are changed by a function of itself, the photo and the view."""
    return lambda: subclass(base, prepare=lambda self, photo: change(self, photo, base.prepare(self, photo)))


def count(self):
    """Return the number of calls before this one."""
    self.calls = getattr(self, "calls", -1) + 1
    return self.calls


def blacken(self, photo, view):
    photo.pixels[:] = 0
    return view


def race(self, photo, view):
    """Take the pixels from an attribute that another thread may have set meanwhile."""
    self.last = view.pixels
    time.sleep(0.002)
    return replace(view, pixels=self.last)


def encodes(change):
    def encode(self, views):
        made = Good.encode(self, views)
        return replace(made, tensors={"pixels": change(self, made.tensors["pixels"], views)})

    return lambda: subclass(Good, encode=encode)


def darken(self, pixels, views):
    views.views[0].pixels.zero_()
    return pixels


def keep(self, values, *others):
    """Change features once a single photo was seen."""
    again = values + getattr(self, "seen", 0)
    self.seen = max(getattr(self, "seen", 0), int(len(values) == 1))
    return again


def with_parameter(self, *, learns=False):
    self.scale = nn.Parameter(torch.ones(1), requires_grad=learns)


def lose_frames(self, encoded, prompt, sampling):
    made = Good.extract(self, encoded, prompt, sampling)
    return replace(made, grid=Grid(encoded.frames[:1] * len(encoded), made.size))


def lose_keys(self, views):
    return replace(Good.encode(self, views), keys=("",) * len(views))


def with_tensor(self, values, *others):
    self.bias = torch.ones(values.shape[1], 1, 1)
    return values + self.bias.to(values.dtype)


def noise_of_batch(self, values, encoded, prompt, sampling):
    return values + torch.randn(values.shape, generator=torch.Generator().manual_seed(1)).to(values.device)


def noise_of_split(self, values, encoded, prompt, sampling):
    return values + len(values) * isinstance(sampling.noise, TrainingNoise)


def each_own_prompt(self, encoded, prompt, sampling):
    rows = [prompt.values[row].mean(dim=0) @ self.tint for row in range(len(encoded))]
    made = Good.extract(self, encoded, None, sampling)
    return replace(made, values=made.values + torch.stack(rows)[..., None, None])


BACKBONES = {
    "different each time": (extracts(lambda self, values, *_: values + torch.rand_like(values)), "the same bits"),
    "counts calls": (extracts(lambda self, values, *_: values + count(self)), "the same bits"),
    "remembers a single photo": (extracts(keep), "earlier calls change features"),
    "mean over the batch": (extracts(lambda self, values, *_: values + values.mean(0)), "batch size changes"),
    "place in the batch": (
        extracts(lambda self, values, *_: values + torch.arange(len(values)).to(values)[:, None, None, None]),
        "the order of a batch changes features",
    ),
    "noise of the batch": (extracts(noise_of_batch), "the order of a batch changes features"),
    "training noise of the split": (
        extracts(noise_of_split),
        "noise of a training must depend on seed, step and index",
    ),
    "half precision": (extracts(lambda self, values, *_: values.half()), "come out in float32"),
    "double precision": (extracts(lambda self, values, *_: values.double()), "come out in float32"),
    "not finite": (extracts(lambda self, values, *_: values / 0), "features must be finite"),
    "constant": (extracts(lambda self, values, *_: 0 * values + 1), "different photos must have different"),
    "fails": (extracts(lambda self, values, *_: values @ torch.ones(3)), "must extract maps; it raised RuntimeError"),
    "no map": (lambda: subclass(Good, extract=lambda *_: torch.ones(1)), "must extract maps: a FeatureMap"),
    "frames lost": (lambda: subclass(Good, extract=lose_frames), "carry the frames"),
    "keys lost": (lambda: subclass(Good, encode=lose_keys), "carry the frames and keys"),
    "other channels": (specifies(channels=47), "the spec says 47 channels, not 48"),
    "other stride": (specifies(stride=8), "map and stride do not fit"),
    "other native size": (specifies(native_size=(33, 32)), "multiples of 4, and native_size or a view"),
    "other multiple": (specifies(size_multiple=5), "multiples of 5"),
    "other frame": (specifies(frame="pad"), "put into the image by pad"),
    "other groups": (specifies(groups=(40, 8)), "channel groups"),
    "other width": (specifies(prompt_width=9), "text encoder and spec do not fit"),
    "a text encoder without a prompt": (specifies(prompt_width=None), "without a prompt has no text encoder"),
    "no spec": (lambda: subclass(Good, start=lambda self: setattr(self, "spec", None)), "in a FeatureSpec"),
    "photo of another size": (
        prepares(lambda self, photo, view: replace(view, frame=pad_frame((8, 8), 32))),
        "say the photo's size",
    ),
    "view of another size": (
        prepares(lambda self, photo, view: replace(view, pixels=view.pixels[:, 1:])),
        "say the view's size",
    ),
    "another key": (prepares(lambda self, photo, view: replace(view, key="one")), "carry its photo's key"),
    "changes the photo": (prepares(blacken), "prepare of the backbone Faulty must not change its inputs in place"),
    "prepared after another": (
        prepares(lambda self, photo, view: replace(view, pixels=view.pixels + count(self))),
        "not on those before it",
    ),
    "prepared in threads": (prepares(race), "in several threads"),
    "encoded at random": (
        encodes(lambda self, pixels, views: pixels + 1e-6 * torch.rand_like(pixels)),
        "same bits",
    ),
    "encoded with the batch": (
        encodes(lambda self, pixels, views: pixels + pixels.mean(0)),
        "must not depend on the rest of its batch",
    ),
    "changes the view": (encodes(darken), "encode of the backbone Faulty must not change its inputs in place"),
    "changes what is encoded": (
        extracts(lambda self, values, encoded, *_: values + 0 * encoded.tensors["pixels"].mul_(0.5).sum()),
        "extract of the backbone Faulty must not change its inputs in place",
    ),
    "deaf": (
        extracts(
            lambda self, values, encoded, prompt, _: (
                Good.extract(self, encoded, None, _).values + 0 * prompt.values.sum()
            )
        ),
        "the prompt has no influence",
    ),
    "no gradient": (extracts(lambda self, values, *_: values.detach()), "the prompt gets no gradient"),
    "a prompt for each": (lambda: subclass(Good, extract=each_own_prompt), r"must take one prompt, \(1, L, D\)"),
    "weights that learn": (
        lambda: subclass(Good, start=lambda self: with_parameter(self, learns=True)),
        r"must be frozen.*'scale'",
    ),
    "a digest of calls": (
        lambda: subclass(Good, weights_digest=lambda self: str(count(self))),
        "weights_digest .* same at every call",
    ),
    "a digest of nothing": (
        lambda: subclass(Good, start=with_parameter, weights_digest=lambda self: "one"),
        "another for other weights",
    ),
    "a digest without a fingerprint": (
        lambda: subclass(Good, weights_digest=lambda self: "one"),
        "fingerprint other than 'unknown'",
    ),
    "a tensor left behind": (extracts(with_tensor), "on the device that it is moved to.*same device"),
    "an answer on the CPU": (extracts(lambda self, values, *_: values.cpu()), "must be on the device of its inputs"),
    "other numbers elsewhere": (
        extracts(lambda self, values, *_: values + (values.device.type != "cpu")),
        "same numbers on every device",
    ),
}


# Image encoders -------------------------------------------------------------------------------------------------------


def describes(change, **members):
    """An image encoder whose local and pooled features are changed by a function of itself and both."""

    def encode(self, views):
        made = FakeImageEncoder.encode(self, views)
        return ImageFeatures(*change(self, made.local, made.pooled))

    return lambda: subclass(FakeImageEncoder, encode=encode, **members)


def unregister(self):
    """Hold the weight as an attribute."""
    weight = self._buffers.pop("weight")
    self.weight = weight


def remember(self, local, pooled):
    return local, keep(self, pooled)


IMAGE_ENCODERS = {
    "other patches": (
        describes(lambda self, local, pooled: (local[:, 1:], pooled)),
        r"local features of shape \(3, 16",
    ),
    "other widths": (describes(lambda self, local, pooled: (local, pooled[:, 1:])), "pooled features of shape"),
    "no spec": (lambda: subclass(FakeImageEncoder, spec=None), "in an ImageFeatureSpec"),
    "mean over the batch": (
        describes(lambda self, local, pooled: (local, pooled + pooled.mean(0))),
        "batch size changes pooled features",
    ),
    "place in the batch": (
        describes(
            lambda self, local, pooled: (local * torch.arange(1, len(local) + 1).to(local)[:, None, None], pooled)
        ),
        "the order of a batch changes local features",
    ),
    "counts calls": (describes(lambda self, local, pooled: (local + count(self), pooled)), "the same bits of local"),
    "remembers a single photo": (describes(remember), "earlier calls change pooled features"),
    "half precision": (describes(lambda self, local, pooled: (local.half(), pooled)), "must be in float32"),
    "not finite": (describes(lambda self, local, pooled: (local, pooled * math.nan)), "pooled features .* finite"),
    "constant": (describes(lambda self, local, pooled: (0 * local, pooled)), "different photos must have different"),
    "a gradient": (
        describes(lambda self, local, pooled: (local * torch.ones(1, requires_grad=True), pooled)),
        "need no gradient",
    ),
    "weights that learn": (
        lambda: subclass(FakeImageEncoder, start=lambda self: with_parameter(self, learns=True)),
        "must be frozen",
    ),
    "changes the photo": (prepares(blacken, FakeImageEncoder), "must not change its inputs in place"),
    "another key": (
        prepares(lambda self, photo, view: replace(view, key="one"), FakeImageEncoder),
        "carry its photo's key",
    ),
    "prepared after another": (
        prepares(lambda self, photo, view: replace(view, pixels=view.pixels + count(self)), FakeImageEncoder),
        "not on those before it",
    ),
    "pixels that are not finite": (
        prepares(lambda self, photo, view: replace(view, pixels=view.pixels * math.nan), FakeImageEncoder),
        "pixels that are finite",
    ),
    "a digest of nothing": (
        lambda: subclass(FakeImageEncoder, start=with_parameter, weights_digest=lambda self: "one"),
        "other weights",
    ),
    "a tensor left behind": (
        describes(lambda self, local, pooled: (local, pooled + torch.ones(48))),
        "device that it is moved to",
    ),
    "attributes for buffers": (
        lambda: subclass(FakeImageEncoder, start=unregister),
        r"register \['weight'\] as a buffer",
    ),
    "an answer on the CPU": (describes(lambda self, local, pooled: (local, pooled.cpu())), "must be on the device"),
    "no features": (lambda: subclass(FakeImageEncoder, encode=lambda *_: None), "encode photos: an ImageFeatures"),
}


# Matchers -------------------------------------------------------------------------------------------------------------


class Faulty(Matcher):
    """A kernel soft arg-max, changed by a function of its answer and the correlation."""

    kind: Literal["faulty"] = "faulty"
    _change = None

    def __call__(self, correlation):
        return self._change(KernelSoftArgmax()(correlation), correlation)


def answers(change):
    def make():
        matcher = Faulty()
        object.__setattr__(matcher, "__pydantic_private__", None)
        return type("Faulty", (Faulty,), {"_change": staticmethod(change), "__module__": __name__})()

    return make


def points(change):
    """A matcher whose points are changed by a function of them and the correlation."""
    return answers(lambda matches, correlation: Matches(change(matches.points, correlation), matches.scores))


def scores(change):
    return answers(lambda matches, correlation: Matches(matches.points, change(matches.scores)))


calls = itertools.count()


def in_place(matches, correlation):
    correlation.values.mul_(1.0001)
    return matches


def only_some(matches, correlation):
    if correlation.values.shape[1] == 0:
        raise IndexError("no points")
    return matches


def ignoring_masks(correlation):
    values = correlation.values.masked_fill(correlation.values == -math.inf, 2.0)
    return NearestNeighbor()(replace(correlation, values=values))


class Scaled(nn.Module):
    """A matcher that learns a scale."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(5.0))

    def forward(self, correlation):
        probability = (correlation.values * self.scale).flatten(2).softmax(dim=-1).view_as(correlation.values)
        height, width = probability.shape[-2:]
        across, down = (torch.arange(side, device=probability.device) for side in (width, height))
        cells = torch.stack([(probability.sum(2) * across).sum(-1), (probability.sum(3) * down).sum(-1)], dim=-1)
        return matches_from_cells(cells, correlation, temperature=0.1)

    def parameter_groups(self):
        return [ParameterGroup("scale", (self.scale,))]

    def log_values(self):
        return {"scale": self.scale.item()}


def keep_answers(matches, correlation, seen=[]):  # noqa: B006 # the fault
    """Move points once a single pair was seen."""
    moved = Matches(matches.points * (0.5 if seen else 1), matches.scores)
    if len(correlation.values) == 1:
        seen.append(1)
    return moved


MATCHERS = {
    "source pixels": (
        points(lambda points, correlation: correlation.source.grid.to_pixels(correlation.target.grid.to_cells(points))),
        "inside the target photos",
    ),
    "cells": (
        points(lambda points, correlation: correlation.target.grid.to_cells(points)),
        "in larger photos at the same",
    ),
    "x and y exchanged": (points(lambda points, correlation: points.flip(-1)), "inside the target photos"),
    "outside the photo": (points(lambda points, correlation: points + 1000), "inside the target photos"),
    "other shape": (
        answers(lambda matches, correlation: Matches(matches.points[:, :2], matches.scores[:, :2])),
        r"shape \(3, 5, 2\)",
    ),
    "fewer scores": (scores(lambda scores: scores[:, :2]), "must return Matches; it raised ShapeError"),
    "double precision": (points(lambda points, correlation: points.double()), "must be in float32"),
    "not finite": (points(lambda points, correlation: points * math.nan), "must be finite"),
    "scores above 1": (scores(lambda scores: scores + 1), r"must be \(B, N\), in \[0, 1\]"),
    "scores that are not finite": (scores(lambda scores: scores * math.nan), "scores .* finite"),
    "counts calls": (points(lambda points, correlation: points * (1 - 0.01 * (next(calls) % 7))), "the same bits"),
    "remembers a single pair": (answers(keep_answers), "earlier calls change answers"),
    "mean over the batch": (
        points(lambda points, correlation: (points + points.mean(0)) / 2),
        "inside|batch size changes",
    ),
    "place in the batch": (
        points(lambda points, correlation: points / torch.arange(1, len(points) + 1).to(points)[:, None, None]),
        "order of a batch changes",
    ),
    "place of the point": (
        points(lambda points, correlation: points / torch.arange(1, points.shape[1] + 1).to(points)[:, None]),
        "the order of the query points",
    ),
    "other points": (
        points(lambda points, correlation: (points + points.mean(1, keepdim=True)) / 2),
        "other query points change",
    ),
    "changes its input": (answers(in_place), "must not change its inputs in place"),
    "answers impossible cells": (lambda: ignoring_masks, "cells that cannot be matched"),
    "fails without a point": (answers(only_some), "must return Matches; it raised IndexError"),
    "no matches": (answers(lambda matches, correlation: matches.points), "must return Matches: a Matches"),
    "a tensor left behind": (
        points(lambda points, correlation: points * torch.ones(2)),
        "on the device that it is moved",
    ),
    "an answer on the CPU": (points(lambda points, correlation: points.cpu()), "must be on the device of its inputs"),
    "a gradient that is not finite": (
        points(lambda points, correlation: points + 0 * (0 * points.sum()).abs().sqrt()),
        "gradients of answers",
    ),
    "other answers with gradients": (
        points(lambda points, correlation: points * (0.9 if points.requires_grad else 1.0)),
        "with gradients as without",
    ),
    "a group is missing": (lambda: subclass(Scaled, parameter_groups=lambda self: []), r"misses \['scale'\]"),
    "no gradient": (
        lambda: subclass(Scaled, forward=lambda self, correlation: KernelSoftArgmax()(correlation)),
        "no gradient reaches",
    ),
    "not in the state dict": (lambda: subclass(Scaled, state_dict=lambda self: {}), "restore all that it learns"),
}


# Losses ---------------------------------------------------------------------------------------------------------------


class Learned(nn.Module, MatchingLoss):
    """Mean over the pairs of the mean, over visible points, of the squared correlation at the true cell from 1."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def each(self, correlation, targets):
        """Return the loss (B, N) of each point."""
        height, width = correlation.values.shape[-2:]
        cells = correlation.target.grid.to_cells(targets.points.nan_to_num()).round().long()
        index = cells[..., 1].clamp(0, height - 1) * width + cells[..., 0].clamp(0, width - 1)
        picked = correlation.values.flatten(2).gather(2, index[..., None])[..., 0]
        return (1 - self.scale * picked).square()

    def average(self, each, targets):
        seen = targets.visible
        pairs = torch.where(seen, each, 0).sum(1) / seen.sum(1).clamp(min=1)
        return pairs.sum() / seen.any(1).sum().clamp(min=1)

    def forward(self, correlation, targets):
        return self.average(self.each(correlation, targets), targets)

    def parameter_groups(self):
        return [ParameterGroup("scale", (self.scale,))]

    def log_values(self):
        return {"scale": self.scale.item()}


def loses(change, **members):
    """A loss that is changed by a function of itself, its value, the correlation and the targets."""

    def forward(self, correlation, targets):
        return change(self, Learned.forward(self, correlation, targets), correlation, targets)

    return lambda: subclass(Learned, forward=forward, **members)


def averages(average):
    return lambda: subclass(Learned, average=lambda self, each, targets: average(each, targets.visible))


def nan_elsewhere(self, correlation, targets):
    each = Learned.each(self, correlation, targets)
    return each * torch.where(targets.visible, each, math.nan).detach() ** 0


def multiplied(self, correlation, targets):
    """Multiply by 0 what is not visible, which lets NaN through."""
    each = Learned.each(self, correlation, targets) + 0 * targets.points.sum(-1)
    seen = targets.visible
    return ((each * seen).sum(1) / seen.sum(1).clamp(min=1)).sum() / seen.any(1).sum().clamp(min=1)


def keep_loss(self, value, correlation, targets):
    again = value * (1 + 0.1 * getattr(self, "seen", 0))
    self.seen = max(getattr(self, "seen", 0), int(len(targets.visible) == 1))
    return again


def outside_of_state(self):
    """Let the parameter be one that no module holds."""
    scale = self.scale
    del self.scale
    object.__setattr__(self, "scale", torch.zeros(()).requires_grad_())
    self.__dict__["held"] = [scale]


def names_of(self):
    return {f"scale {count(self)}": 1.0}


def taking(change):
    """A loss that takes matches, whose value is changed."""
    good = EndPointError()

    class Faulty(MatchingLoss):
        takes_matches = True

        def __call__(self, correlation, targets, matches):
            return change(good(correlation, targets, matches), correlation, targets, matches)

    return Faulty()


LOSSES = {
    "no scalar": (loses(lambda self, value, *_: value[None]), "must return a scalar or a LossValue.* shape"),
    "no tensor": (loses(lambda self, value, *_: value.item()), "must return a scalar or a LossValue"),
    "double precision": (loses(lambda self, value, *_: value.double()), "must be in float32"),
    "not finite": (loses(lambda self, value, *_: value / 0), "must be finite"),
    "counts calls": (loses(lambda self, value, *_: value + count(self)), "the same for the same pairs each time"),
    "remembers a single pair": (loses(keep_loss), "mean over the pairs|earlier calls change|order"),
    "invisible targets": (
        averages(lambda each, seen: each.mean(1)[seen.any(1)].sum() / seen.any(1).sum().clamp(min=1)),
        "must not influence .* and their targets do",
    ),
    "invisible targets that are NaN": (lambda: subclass(Learned, forward=multiplied), "NaN|must be finite"),
    "invisible correlations": (
        loses(
            lambda self, value, correlation, targets: (
                value + 0.01 * correlation.values.square().mean() * targets.visible.any()
            )
        ),
        "must not influence",
    ),
    "invisible gradients": (
        loses(
            lambda self, value, correlation, targets: (
                value + 0.1 * (correlation.values - correlation.values.detach()).mean() * targets.visible.any()
            )
        ),
        "must not influence",
    ),
    "padding": (
        averages(lambda each, seen: (torch.where(seen, each, 0).mean(1)).sum() / seen.any(1).sum().clamp(min=1)),
        "how many invisible points fill a batch|mean over the pairs",
    ),
    "pairs without a visible point": (loses(lambda self, value, *_: value + 1), "must be 0 for pairs without"),
    "NaN without a visible point": (
        averages(lambda each, seen: (torch.where(seen, each, 0).sum(1) / seen.sum(1)).sum()),
        "must be finite",
    ),
    "mean over all points": (
        averages(lambda each, seen: torch.where(seen, each, 0).sum() / seen.sum().clamp(min=1)),
        "mean over the pairs",
    ),
    "mean over all pairs": (
        averages(lambda each, seen: (torch.where(seen, each, 0).sum(1) / seen.sum(1).clamp(min=1)).mean()),
        "mean over the pairs",
    ),
    "sum over pairs": (
        averages(lambda each, seen: (torch.where(seen, each, 0).sum(1) / seen.sum(1).clamp(min=1)).sum()),
        "mean over the pairs",
    ),
    "the first point": (
        averages(lambda each, seen: torch.where(seen, each, 0)[:, 0].sum() / seen.any(1).sum().clamp(min=1)),
        "the order of the points",
    ),
    "no gradient": (loses(lambda self, value, *_: value.detach() + 0 * self.scale), "must reach the features"),
    "a parameter without gradient": (
        lambda: subclass(
            Learned,
            start=lambda self: setattr(self, "other", nn.Parameter(torch.ones(1))),
            parameter_groups=lambda self: [ParameterGroup("all", (self.scale, self.other))],
        ),
        "learns other, and no gradient reaches it",
    ),
    "a group is missing": (
        lambda: subclass(Learned, start=lambda self: setattr(self, "other", nn.Parameter(torch.ones(1)))),
        r"misses \['other'\]",
    ),
    "a parameter twice": (
        lambda: subclass(Learned, parameter_groups=lambda self: [*Learned.parameter_groups(self) * 2]),
        "each parameter once",
    ),
    "a frozen parameter in a group": (
        lambda: subclass(Learned, start=lambda self: self.requires_grad_(False)),
        "requires_grad = False",
    ),
    "a parameter that is not saved": (
        lambda: subclass(
            Learned,
            start=lambda self: self.__dict__.update(held=[nn.Parameter(torch.ones(1))]),
            parameter_groups=lambda self: [ParameterGroup("all", (self.scale, *self.held))],
        ),
        "not in its state_dict",
    ),
    "no groups": (lambda: subclass(Learned, parameter_groups=lambda self: [torch.ones(1)]), "type ParameterGroup"),
    "names that change": (lambda: subclass(Learned, log_values=names_of), "always have the same names"),
    "values that are no numbers": (lambda: subclass(Learned, log_values=lambda self: {"a": "b"}), "numbers by name"),
    "a state that is lost": (
        lambda: subclass(Learned, load_state_dict=lambda self, state: None),
        "must restore all that it learns",
    ),
    "matches that are not taken": (
        lambda: subclass(Learned, takes_matches=True),
        "must return a scalar or a LossValue",
    ),
    "matches that do not matter": (
        lambda: taking(lambda loss, correlation, targets, matches: correlation.values.square().mean()),
        "must",
    ),
    "invisible matches": (
        lambda: taking(lambda loss, correlation, targets, matches: loss + 0.01 * matches.points.mean()),
        "must not influence|mean over the pairs|0 for pairs",
    ),
    "a bound that is missing": (lambda: subclass(Learned, has_lower_bound=True), "has_lower_bound = True, .* lack one"),
    "a bound that is not said": (
        loses(lambda self, value, *_: LossValue(value, value.detach() * 0)),
        "has_lower_bound = False, .* have one",
    ),
    "a bound that is none": (
        loses(lambda self, value, *_: LossValue(value, value.detach() * 0 + 0.3), has_lower_bound=True),
        "must not fall below its lower bound",
    ),
    "changes its input": (
        loses(lambda self, value, correlation, targets: value + 0 * targets.points.mul_(0.5).nan_to_num().sum()),
        "must not change its inputs in place",
    ),
    "a tensor left behind": (
        loses(
            lambda self, value, correlation, _: value + 0 * (correlation.values.sum((0, 1, 2)) * torch.ones(8)).sum()
        ),
        "on the device that it is moved to",
    ),
    "fails": (loses(lambda self, value, *_: [][0]), "must return a scalar or a LossValue; it raised ComponentError"),
}


# Pair transforms ------------------------------------------------------------------------------------------------------


def center(source, target):
    """Subtract the mean feature of both maps of a pair."""
    mean = torch.cat([source.values.flatten(2), target.values.flatten(2)], dim=2).mean(2)[..., None, None]
    return replace(source, values=source.values - mean), replace(target, values=target.values - mean)


def transforms(change):
    """A transform of both maps by a function of the values of one."""

    def transform(source, target):
        return tuple(replace(side, values=change(side.values)) for side in center(source, target))

    return lambda: transform


def remember_pairs():
    seen = []

    def transform(source, target):
        again = tuple(replace(side, values=side.values * (1 + len(seen))) for side in center(source, target))
        if len(source) == 1:
            seen.append(1)
        return again

    return transform


def regrid(source, target):
    return replace(source, grid=replace(source.grid, alignment="centers")), target


def in_place_transform(source, target):
    source.values.sub_(1)
    return source, target


class Projection(nn.Module):
    """A transform that learns a weight of each channel."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(48, 1, 1))

    def forward(self, source, target):
        return tuple(replace(side, values=side.values * self.weight) for side in (source, target))

    def parameter_groups(self):
        return [ParameterGroup("weight", (self.weight,))]

    def log_values(self):
        return {}


class Picky(PairTransform):
    kind: Literal["picky"] = "picky"

    def check_spec(self, spec):
        raise InputError("mine needs square maps")

    def __call__(self, source, target):
        return source, target


PAIR_TRANSFORMS = {
    "mean over the batch": (transforms(lambda values: values + values.mean(0)), "each pair by itself"),
    "place in the batch": (
        transforms(lambda values: values * torch.arange(1, len(values) + 1).to(values)[:, None, None, None]),
        "the order of a batch changes",
    ),
    "different each time": (transforms(lambda values: values + torch.rand_like(values)), "the same bits each time"),
    "remembers a single pair": (remember_pairs, "earlier calls change"),
    "half precision": (transforms(lambda values: values.half()), "must be in float32"),
    "not finite": (transforms(lambda values: values / 0), "must be finite"),
    "another grid": (lambda: regrid, "on the same grids as before"),
    "another size": (
        lambda: lambda source, target: (FeatureMap(source.values[..., 1:], Grid(source.grid.frames, (6, 6))), target),
        "on the same grids",
    ),
    "other channels": (
        lambda: lambda source, target: (replace(source, values=source.values[:, 1:]), target),
        "equally many channels",
    ),
    "other groups": (lambda: lambda source, target: (replace(source, groups=(24, 24)), target), "same channel groups"),
    "masks lost": (
        lambda: lambda source, target: (FeatureMap(source.values, source.grid), target),
        "must keep the masks",
    ),
    "masks changed": (
        lambda: lambda source, target: (source, replace(target, mask=None if target.mask is None else ~target.mask)),
        "must keep the masks",
    ),
    "one map": (lambda: lambda source, target: source, "must return two maps"),
    "three maps": (lambda: lambda source, target: (source, target, source), "must return two maps"),
    "changes its input": (lambda: in_place_transform, "must not change its inputs in place"),
    "refuses the spec": (Picky, "check_spec .* mine needs square maps"),
    "a tensor left behind": (
        transforms(lambda values: values * torch.ones(48, 1, 1)),
        "on the device that it is moved",
    ),
    "an answer on the CPU": (transforms(lambda values: values.cpu()), "must be on the device of its inputs"),
    "a gradient that is not finite": (
        transforms(lambda values: values + 0 * (0 * values).abs().sum().sqrt()),
        "gradients of the maps",
    ),
    "no gradient": (
        lambda: subclass(Projection, forward=lambda self, source, target: (source, target)),
        "no gradient reaches",
    ),
    "a group is missing": (lambda: subclass(Projection, parameter_groups=lambda self: []), r"misses \['weight'\]"),
    "a state that is lost": (
        lambda: subclass(Projection, load_state_dict=lambda self, state: None),
        "must restore all that it learns",
    ),
}


# Data sets ------------------------------------------------------------------------------------------------------------


def records(change):
    """A data set whose records are changed by a function of itself and the record."""
    return lambda: subclass(
        FakePairs,
        __getitem__=lambda self, index: change(self, FakePairs.__getitem__(self, index)),
        start=lambda self: setattr(self, "keys", FakePairs().keys),
    )


def photographs(change):
    return lambda: subclass(FakePairs, photo=lambda self, image_id: change(self, FakePairs.photo(self, image_id)))


def with_keys(change):
    return lambda: subclass(FakePairs, start=lambda self: setattr(self, "keys", change(self.keys)))


def attribute(name, value):
    return lambda: subclass(FakePairs, start=lambda self: setattr(self, name, value))


def raced(self, photo):
    self.last = photo
    time.sleep(0.002)
    return self.last


def flicker(self, photo):
    return Photo(photo.pixels + np.uint8(count(self)), photo.name)


def wander(self, record):
    return replace(record, target_box=(1.0, 3.0, 29.0 - count(self) / 100, 20.0))


DATASETS = {
    "a length of its own": (lambda: subclass(FakePairs, __len__=lambda self: 7), "as many as its length"),
    "no pairs": (lambda: FakePairs(pairs=0), "must hold pairs"),
    "a pair twice": (with_keys(lambda keys: (*keys, keys[0])), "each once"),
    "keys of another type": (with_keys(lambda keys: tuple(key.pair_id for key in keys)), "type PairKey"),
    "another pair": (
        records(lambda self, record: replace(record, pair_id="other")),
        "must be a PairRecord of its key",
    ),
    "another category": (
        records(lambda self, record: replace(record, category="up")),
        "of the categories that its key says",
    ),
    "a category that is not declared": (attribute("categories", ("left",)), "lack 'right'"),
    "categories in a list": (attribute("categories", ["left", "right"]), "a tuple of names"),
    "a point outside": (
        records(lambda self, record: replace(record, source_points=record.source_points + 30)),
        "must be inside the photo",
    ),
    "x and y exchanged": (
        records(lambda self, record: replace(record, target_points=record.target_points[:, ::-1] + [0, 8])),
        "must be inside the photo",
    ),
    "a box outside": (
        records(lambda self, record: replace(record, target_box=(1.0, 3.0, 40.0, 20.0))),
        "must be inside the photo",
    ),
    "a size of its own": (
        records(lambda self, record: replace(record, source_size=(32, 32))),
        r"is \(24, 32\), and a record says \(32, 32\)",
    ),
    "a photo that changes": (photographs(flicker), "the same photo each time"),
    "a record that changes": (records(wander), "the same pair each time"),
    "threads that meet": (photographs(raced), "in several threads"),
    "no photo": (photographs(lambda self, photo: photo.pixels), "must decode its photos"),
    "a photo that fails": (photographs(lambda self, photo: {}["photo"]), "decode its photos; it raised KeyError"),
    "an unknown reference": (attribute("reference", "image"), "reference"),
    "an unknown split": (attribute("split", "val"), "one of train, validation, test"),
    "no name": (attribute("name", None), "must have a name"),
    "published numbers": (attribute("published_pairs", {"test": "many"}), "numbers by split"),
    "a pair that is not there": (
        lambda: subclass(
            FakePairs,
            __getitem__=lambda self, index: FakePairs.__getitem__(self, index % 6),
            start=lambda self: setattr(self, "keys", FakePairs().keys),
        ),
        "a pair that it does not have",
    ),
}


# Prompts --------------------------------------------------------------------------------------------------------------


class Vectors(Prompt):
    """Two learned vectors, changed by `change`, a function of itself, the embeddings, images and partners."""

    change = staticmethod(lambda self, values, images, partners: values)

    def __init__(self, *, backbone, start: float = 0.5) -> None:
        super().__init__()
        self.text_encoder = backbone.text_encoder
        self.start = start
        self.vectors = nn.Parameter(torch.full((2, backbone.text_encoder.width), start))
        self.begin(backbone)

    def begin(self, backbone):
        """Change the prompt after it was built."""

    def forward(self, images, partners=None):
        values = encode_token_vectors(self.text_encoder, self.vectors.expand(len(images), -1, -1))
        return PromptEmbedding(self.change(self, values, images, partners))


def prompts(change=None, **members):
    """A registered prompt class; the test forgets it."""
    members |= {} if change is None else {"change": staticmethod(change)}
    return lambda: register_prompt("faulty")(type("Faulty", (Vectors,), {"__module__": __name__, **members}))


def lengths(names):
    return torch.tensor([float(len(name or "")) for name in names])[:, None, None]


def brightness(images):
    return images.views["backbone"].pixels.mean(dim=(1, 2, 3))[:, None, None]


def refuse(self, values, images, partners):
    if None in images.categories:
        raise InputError("a photo has no category")
    return values + lengths(images.categories).to(values)


def by_partner(self, values, images, partners):
    return values + (0 if partners is None else brightness(partners).to(values))


def needs_category(self, values, images, partners):
    return values + torch.tensor([len(name) for name in images.categories]).to(values)[:, None, None] * 0


def remember_photo(self, values, images, partners):
    return keep(self, values)


def frozen_inside(self, backbone):
    self.parts = nn.ModuleList([backbone.text_encoder])


def frozen_tower(self, backbone):
    self.tower = nn.LayerNorm(2).requires_grad_(False)


def of_the_backbone(self, backbone):
    self.register_buffer("stolen", backbone.text_encoder.embeddings)


def unsaid(self, backbone):
    self.secret = torch.rand(1).item()


def lost(self, backbone):
    self.held = [nn.Parameter(torch.ones(1))]


def plain_tensor(self, backbone):
    self.bias = torch.ones(8)


def drop_state(self, *args, **options):
    return {"vectors": torch.zeros(2, 8)}


def at_random(self, backbone):
    with torch.no_grad():
        self.vectors.normal_()


PROMPTS = {
    "another width": (prompts(lambda self, values, *_: values[..., 1:]), "backbone's text width, 8, not 7"),
    "another batch": (prompts(lambda self, values, *_: values[:1].expand(2, -1, -1)), "must return 1 or 3 embeddings"),
    "half precision": (prompts(lambda self, values, *_: values.half()), "must be in torch.float32"),
    "not finite": (prompts(lambda self, values, *_: values * math.nan), "must be finite"),
    "no embedding": (prompts(forward=lambda self, images, partners=None: self.vectors), "a PromptEmbedding, not"),
    "fails": (prompts(lambda self, values, *_: [][0]), "must return an embedding; it raised IndexError"),
    "counts calls": (prompts(lambda self, values, *_: values + count(self)), "the same embeddings each time"),
    "remembers a single photo": (prompts(remember_photo), "earlier calls change"),
    "mean over the batch": (
        prompts(lambda self, values, images, _: values + brightness(images).mean(), scope="image"),
        "the other photos of a batch change",
    ),
    "place in the batch": (
        prompts(lambda self, values, *_: values + torch.arange(len(values)).to(values)[:, None, None]),
        "the order of a batch changes",
    ),
    "an unknown scope": (prompts(scope=property(lambda self: "photo")), "must be one of dataset, category"),
    "dataset, and the category": (
        prompts(lambda self, values, images, _: values + lengths(images.categories).to(values)),
        "is 'dataset', and it depends on the category",
    ),
    "dataset, and the photo": (
        prompts(lambda self, values, images, _: values + brightness(images).to(values)),
        "'dataset', and it depends on the photo",
    ),
    "dataset, and the partner": (prompts(by_partner), "'dataset', and it depends on the partner"),
    "category, and the photo": (
        prompts(
            lambda self, values, images, _: refuse(self, values, images, _) + brightness(images).to(values),
            scope="category",
        ),
        "'category', and it depends on the photo",
    ),
    "category, and the partner": (
        prompts(lambda self, *given: refuse(self, *given) + by_partner(self, *given), scope="category"),
        "'category', and it depends on the partner",
    ),
    "image, and the category": (
        prompts(lambda self, values, images, _: values + lengths(images.categories).to(values), scope="image"),
        "'image', and it depends on the category",
    ),
    "image, and the partner": (prompts(by_partner, scope="image"), "'image', and it depends on the partner"),
    "pair, and the category": (
        prompts(lambda self, values, images, _: values + lengths(images.categories).to(values), scope="pair"),
        "'pair', and it depends on the category",
    ),
    "a missing category is accepted": (
        prompts(lambda self, values, images, _: values + lengths(images.categories).to(values), scope="category"),
        "accepts a photo without one",
    ),
    "a missing category fails": (prompts(needs_category, scope="category"), "must refuse a photo without one"),
    "a category is needed": (prompts(needs_category), "must return an embedding; it raised TypeError"),
    "no gradient": (prompts(lambda self, values, *_: values.detach()), "no gradient reaches"),
    "a group is missing": (prompts(parameter_groups=lambda self: []), r"misses \['vectors'\]"),
    "a parameter twice": (
        prompts(parameter_groups=lambda self: [ParameterGroup("one", (self.vectors, self.vectors))]),
        "each parameter once",
    ),
    "a parameter that is not saved": (
        prompts(begin=lost, parameter_groups=lambda self: [ParameterGroup("one", (self.vectors, *self.held))]),
        "not in its state_dict",
    ),
    "names that change": (prompts(log_values=names_of), "always have the same names"),
    "a frozen network inside": (prompts(begin=frozen_inside), "frozen network, FakeTextEncoder, in its state_dict"),
    "a frozen tower inside": (prompts(begin=frozen_tower), r"\['tower.weight'\], which is not learned"),
    "a tensor of the backbone": (prompts(begin=of_the_backbone), "of the backbone in its state_dict"),
    "token vectors of another form": (
        prompts(token_vectors=lambda self, images, partners=None: self.vectors),
        r"token_vectors .* \(B, S, D\)",
    ),
    "what it is built from is not all": (
        prompts(lambda self, values, *_: values + self.secret, begin=unsaid),
        "must follow from its config and state_dict",
    ),
    "a state that is lost": (prompts(load_state_dict=lambda self, *_: None), "same embeddings after it was saved"),
    "another value each time": (prompts(begin=at_random), "draw them from a seed"),
    "another config": (
        prompts(
            begin=lambda self, backbone: setattr(self, "config", None),
            __setattr__=lambda self, name, value: Prompt.__setattr__(self, name, None if name == "config" else value),
        ),
        "must have the config that it was built from",
    ),
    "a tensor left behind": (
        prompts(lambda self, values, *_: values + self.bias, begin=plain_tensor),
        "on the device that it is moved to",
    ),
    "an answer on the CPU": (prompts(lambda self, values, *_: values.cpu()), "must be on the device of its inputs"),
}

FAULTS = {
    "backbone": BACKBONES,
    "image_encoder": IMAGE_ENCODERS,
    "prompt": PROMPTS,
    "matcher": MATCHERS,
    "loss": LOSSES,
    "pair_transform": PAIR_TRANSFORMS,
    "dataset": DATASETS,
}
"""By the name of the check."""
