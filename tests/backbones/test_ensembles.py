"""Noise ensembles: their moments, their bits, and what an ensemble of a user must answer."""

from __future__ import annotations

from itertools import combinations
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sd4match.backbones.noise import image_noise, noisy_latents
from sd4match.config import load_preset
from sd4match.data import SyntheticConfig
from sd4match.errors import ComponentError, ConfigError, InputError
from sd4match.geometry import squash_frame
from sd4match.interfaces import NoiseEnsemble
from sd4match.prompting.text import EmptyPrompt
from sd4match.registry import ensembles, register
from sd4match.structures.images import ImageBatch, Views
from sd4match.structures.tensors import Encoded, EvaluationNoise, Sampling, TrainingNoise
from sd4match.testing import random_photo

KINDS = ("independent", "antithetic", "matched")
NO_SPREAD = -200.0
"""Log-variance of a posterior that is its mean."""


def encoded_as(*keys, shape):
    """Return latents of 0."""
    mean = torch.zeros(len(keys), *shape)
    frames = tuple(squash_frame((40, 48), (40, 48)) for _ in keys)
    return Encoded({"mean": mean, "log_variance": torch.full_like(mean, NO_SPREAD)}, frames, keys)


def noises_of(sampling, *keys, members=None, shape=(4, 6, 5)):
    """Return the noises (members, B, C, h, w) that Eq. 1 adds."""
    members = range(sampling.ensemble_size) if members is None else members
    noisy = noisy_latents(encoded_as(*keys, shape=shape), sampling, members, scale=1.0, alpha_cumprod=torch.tensor(0.0))
    return noisy.unflatten(0, (len(members), len(keys)))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15)
@given(size=st.integers(2, 9), seed=st.integers(0, 2**40))
def test_moments_over_the_ensemble(kind, size, seed):
    """The mean is 0 but for the published ensemble, and the variance 1 for the matched one."""
    noises = noises_of(Sampling(100, size, EvaluationNoise(seed), ensemble=kind), "a", "b")
    mean, square = noises.mean(dim=0), noises.square().mean(dim=0)
    assert (mean.abs().max() < 1e-5) == (kind != "independent")
    assert bool((square - 1).abs().max() < 1e-4) == (kind == "matched")
    assert 0.7 < float(square.mean()) < 1.3
    assert not any(torch.equal(noises[one], noises[other]) for one, other in combinations(range(size), 2))


def test_members_are_standard_normal_but_for_the_signs_of_a_matched_pair():
    """Of 60,000 numbers, mean and variance are within five standard deviations of 0 and 1."""
    for kind in KINDS:
        for size in (1, 2, 3, 4, 5, 8):
            for noise in noises_of(Sampling(100, size, ensemble=kind), "a", shape=(4, 100, 150)):
                assert abs(float(noise.mean())) < 5 * 60_000**-0.5
                assert abs(float(noise.square().mean()) - 1) < 5 * (2 / 60_000) ** 0.5
    signs = noises_of(Sampling(100, 2, ensemble="matched"), "a")
    torch.testing.assert_close(signs.abs(), torch.ones_like(signs))


@pytest.mark.parametrize("kind", KINDS)
def test_one_member_is_the_published_noise(kind):
    plain = noises_of(Sampling(100, 1), "a", "b")
    assert torch.equal(noises_of(Sampling(100, 1, ensemble=kind), "a", "b"), plain)


def test_independent_noises_are_those_that_were_published_before_there_were_others():
    """The bits of stream (seed, photo, member), which reports of earlier versions stand on."""
    noise = image_noise(encoded_as("photo", shape=(1, 1, 3)), Sampling(5, 2, EvaluationNoise(7)), 0, "noise", 1)
    torch.testing.assert_close(noise, torch.tensor([[[-0.1417, 0.0524, -0.8754]]]), atol=5e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), size=st.integers(1, 6))
def test_no_noise_depends_on_the_batch_or_on_the_passes_at_once(kind, data, size):
    keys = data.draw(st.permutations("abcd"))
    members = data.draw(st.lists(st.integers(0, size - 1), min_size=1, unique=True))
    sampling = Sampling(100, size, EvaluationNoise(3), ensemble=kind)
    some = noises_of(sampling, *keys, members=members)
    for place, key in enumerate(keys):
        assert torch.equal(some[:, place], noises_of(sampling, key)[:, 0][members])


def test_training_noise_follows_the_index_in_the_batch():
    sampling = [Sampling(100, 2, TrainingNoise(0, 4, indices), ensemble="antithetic") for indices in ((0, 1), (1,))]
    assert torch.equal(noises_of(sampling[0], "a", "b")[:, 1], noises_of(sampling[1], "z")[:, 0])


@pytest.mark.parametrize("at_once", [1, 2, 8])
def test_features_are_the_mean_over_the_ensemble_however_many_go_at_once(mini, monkeypatch, at_once):
    latents = mini.encode(Views.of([mini.prepare(random_photo(seed=seed)) for seed in (0, 1)]))
    prompt = EmptyPrompt(backbone=mini)(ImageBatch({}, (None,)))
    found = []
    for passes in (at_once, 4):
        monkeypatch.setattr(mini, "passes_at_once", passes)
        with torch.no_grad():
            found.append(mini.extract(latents, prompt, Sampling(100, 3, ensemble="matched")).values)
    scale = found[0].abs().max()
    torch.testing.assert_close(found[0] / scale, found[1] / scale, atol=1e-5, rtol=0)


def test_fewer_passes_come_as_near_to_the_mean(mini):
    """At t = 40 two matched passes are nearer to the mean of 48 than eight independent ones."""
    photo = SyntheticConfig(split="test", pairs=1, photos_per_category=2).build().photo("fish-0")
    latents = mini.encode(Views.of([mini.prepare(photo)]))
    prompt = EmptyPrompt(backbone=mini)(ImageBatch({}, (None,)))

    def features(size, kind, seed):
        with torch.no_grad():
            return mini.extract(latents, prompt, Sampling(40, size, EvaluationNoise(seed), ensemble=kind)).values

    mean = features(48, "matched", 99)
    error = {
        (size, kind): sum(float((features(size, kind, seed) - mean).norm() / mean.norm()) for seed in (0, 1)) / 2
        for size, kind in ((8, "independent"), (2, "antithetic"), (2, "matched"))
    }
    assert error[2, "matched"] < 0.8 * error[8, "independent"]
    assert error[2, "matched"] < error[2, "antithetic"] < 1.2 * error[8, "independent"]


def test_names_are_checked():
    assert ensembles.kinds() == tuple(sorted(KINDS))
    with pytest.raises(InputError, match="unknown ensemble 'antithetik'; did you mean 'antithetic'"):
        Sampling(100, 2, ensemble="antithetik")
    with pytest.raises(ConfigError, match=r"evaluation\.sampling\.ensemble: .*did you mean 'matched'"):
        load_preset("text", ["evaluation.sampling.ensemble=matchd"])
    config = load_preset("text", ["evaluation.sampling={ensemble_size: 2, ensemble: antithetic}"])
    assert config.evaluation.sampling.sampling(3).ensemble == "antithetic"


class Answering(NoiseEnsemble):
    """Ensemble that answers what it is told to."""

    kind: Literal["answering"] = "answering"

    def noises(self, draw, size, members):
        return ANSWERS[-1](draw, members)


ANSWERS = [lambda draw, members: torch.stack([-draw(member) for member in members])]


def test_an_ensemble_of_a_user_is_used_and_checked(mini):
    with ensembles.temporarily():
        register(Answering)
        sampling = Sampling(100, 2, ensemble="answering")
        assert torch.equal(noises_of(sampling, "a"), -noises_of(Sampling(100, 2), "a"))
        for answer, message in (
            (lambda draw, members: draw(0), "the noise ensemble Answering: its noises must be"),
            (lambda draw, members: None, "its noises must be a torch tensor"),
            (lambda draw, members: torch.stack([draw(0), draw(1)]) / 0, "not finite"),
            (lambda draw, members: 1 / 0, "the noise ensemble Answering failed: ZeroDivisionError"),
        ):
            ANSWERS.append(answer)
            with pytest.raises(ComponentError, match=message):
                noises_of(sampling, "a")
            ANSWERS.pop()


@pytest.mark.slow
def test_stored_maps_of_another_ensemble_are_not_used(tmp_path):
    from sd4match.evaluation import evaluate

    small = ["data.photos_per_category=2", "data.pairs=2", "evaluation.bootstrap_samples=10",
             "evaluation.sampling={timestep: 100, ensemble_size: 2}"]  # fmt: skip

    def counts(kind, maps=None):
        config = load_preset("empty", [*small, f"evaluation.sampling.ensemble={kind}"])
        report = evaluate(config, maps=maps)
        return report.results[0].scores.to_json()

    for kind in KINDS:
        with_maps = counts(kind, tmp_path / "maps")
        assert with_maps == counts(kind)
    files = len(list((tmp_path / "maps").rglob("*.safetensors")))
    assert files % len(KINDS) == 0
