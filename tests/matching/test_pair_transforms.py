"""Co-PCA and mirrored alignment, number by number."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch.nn.functional import normalize

from sd4match.errors import ConfigError, InputError
from sd4match.geometry import Grid, own_frame, pad_frame
from sd4match.matching import CoPCA, MirroredAlignment, functional
from sd4match.structures.specs import FeatureSpec
from sd4match.structures.tensors import FeatureMap


def random_map(channels, size=(4, 6), *, batch=2, seed=0, groups=()):
    values = torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(seed))
    return FeatureMap(values, Grid((own_frame((40, 60)),) * batch, size, "centers"), groups=groups)


def test_one_group_is_reduced_and_normalized():
    source, target = random_map(6), random_map(6, (3, 5), seed=1)
    found = CoPCA(components=2)(source, target)
    reduced = functional.co_pca(source.values, target.values, 2)
    for side, values, before in zip(found, reduced, (source, target), strict=True):
        torch.testing.assert_close(side.values, normalize(values, dim=1))
        assert (side.groups, side.grid) == ((), before.grid)


def test_each_group_has_its_components_and_each_block_its_weight():
    source, target = (random_map(9, seed=seed, groups=(3, 2, 4)) for seed in (0, 1))
    found = CoPCA(components=(2, 0, 1), blocks=(1, 2), weights=(0.5, 3.0))(source, target)
    pieces = [
        functional.co_pca(one, other, count)
        for one, other, count in zip(
            source.values.split((3, 2, 4), 1), target.values.split((3, 2, 4), 1), (2, 0, 1), strict=True
        )
    ]
    for side, (first, second, third) in zip(found, zip(*pieces, strict=True), strict=True):
        expected = torch.cat([0.5 * normalize(first, dim=1), 3 * normalize(torch.cat([second, third], 1), dim=1)], 1)
        torch.testing.assert_close(side.values, expected)
        assert side.groups == (2, 2, 1)
    together, _ = CoPCA(components=1)(source, target)
    assert together.groups == (1, 1, 1)
    torch.testing.assert_close(together.values.norm(dim=1), torch.ones(2, 4, 6))


@pytest.mark.parametrize("components", [6, 7, 0])
def test_as_many_components_as_channels_keep_the_maps(components):
    source, target = random_map(6), random_map(6, seed=1)
    kept = functional.co_pca(source.values, target.values, components)
    assert kept[0] is source.values
    assert kept[1] is target.values
    assert functional.co_pca(source.values, target.values, 5)[0].shape == (2, 5, 4, 6)


def test_the_directions_are_the_largest_first_and_from_the_mean_of_both():
    generator = torch.Generator().manual_seed(0)
    scales = torch.tensor([1.0, 5.0, 25.0])[:, None, None]
    source = torch.randn(1, 3, 8, 8, generator=generator) * scales + 100
    target = torch.randn(1, 3, 7, 9, generator=generator) * scales - 20
    one, other = functional.co_pca(source, target, 2)
    cells = torch.cat([source.flatten(2), target.flatten(2)], dim=2)[0].double()
    cells = cells - cells.mean(dim=1, keepdim=True)
    _, _, directions = torch.linalg.svd(cells.T, full_matrices=False)
    expected = directions[:2] @ cells
    found = torch.cat([one.flatten(2), other.flatten(2)], dim=2)[0].double()
    signs = (found * expected).sum(dim=1).sign()[:, None]
    torch.testing.assert_close(found, signs * expected, rtol=1e-4, atol=1e-4)
    assert functional.co_pca(source.double(), target, 1)[0].dtype == torch.float64


@pytest.mark.parametrize(
    "fields", [{"components": (2, 2)}, {"blocks": (1, 1)}, {"blocks": (1, 1), "weights": (1.0, 1.0)}, {"blocks": (4,)}]
)
def test_fields_for_other_groups_are_refused(fields):
    source = random_map(9, groups=(3, 3, 3))
    with pytest.raises(InputError, match="co-PCA has"):
        CoPCA(**fields)(source, source)


def score(source, target, row, half, counted):
    """The mean over the counted cells of the source of the largest cosine with a cell of the target's mask."""
    channels = target.values.shape[1] // 2
    values = normalize(source.values[row].split(channels)[half], dim=0)
    own = normalize(target.values[row, :channels], dim=0).flatten(1)
    if target.mask is not None:
        own = own[:, target.mask[row].flatten()]
    best = [float((values[:, y, x] @ own).max()) for y, x in counted]
    return sum(best) / len(best) if best else 0.0


def check_choice(source, target, counted, every):
    """Check that of each row the half of the higher score is kept, where the scores are not all but equal."""
    kept, own = MirroredAlignment(every=every)(source, target)
    halves = source.values.chunk(2, dim=1)
    chosen = []
    for row in range(len(source)):
        plain, mirrored = (score(source, target, row, half, counted[row]) for half in (0, 1))
        assert abs(plain - mirrored) > 1e-5
        chosen.append(mirrored > plain)
        assert torch.equal(kept.values[row], halves[chosen[-1]][row])
    assert torch.equal(own.values, target.values.chunk(2, dim=1)[0])
    return chosen


@pytest.mark.parametrize(("every", "rows", "columns"), [
    (1, range(5), range(7)), (2, (0, 2, 4), (0, 2, 4, 6)), (3, (0, 3), (0, 3, 6)), (4, (0, 4), (1, 5)),
    (5, (2,), (0, 5)), (7, (2,), (3,)), (10, (2,), (3,)),
])  # fmt: skip
def test_the_score_is_of_every_such_cell(every, rows, columns):
    source, target = (random_map(6, (5, 7), batch=12, seed=seed, groups=(3, 3)) for seed in (2, 3))
    starts = (4 % every // 2, 6 % every // 2)
    rows, columns = range(starts[0], 5, every), range(starts[1], 7, every)
    chosen = check_choice(source, target, [[(y, x) for y in rows for x in columns]] * 12, every)
    assert len(set(chosen)) == 2


def test_the_score_is_of_cells_on_the_photo():
    frames = (pad_frame((40, 20), 32), pad_frame((20, 40), 32)) * 6
    grid = Grid(frames, (4, 4), "centers")
    source, target = (replace(random_map(6, (4, 4), batch=12, seed=seed, groups=(3, 3)), grid=grid) for seed in (2, 3))
    upright, flat = [(y, x) for y in range(4) for x in (1, 2)], [(y, x) for y in (1, 2) for x in range(4)]
    assert len(set(check_choice(source, target, [upright, flat] * 6, 1))) == 2


@pytest.mark.parametrize("masked", ["source", "target", "both"])
def test_the_score_is_of_cells_in_masks(masked):
    source, target = (random_map(6, (5, 7), batch=12, seed=seed, groups=(3, 3)) for seed in (2, 3))
    everywhere = [(y, x) for y in range(5) for x in range(7)]
    counted = [everywhere] * 12
    if masked != "target":
        mask = torch.rand(12, 5, 7, generator=torch.Generator().manual_seed(0)) > 0.7
        source, counted = replace(source, mask=mask), [[(y, x) for y, x in everywhere if one[y, x]] for one in mask]
    if masked != "source":
        target = replace(target, mask=torch.rand(12, 5, 7, generator=torch.Generator().manual_seed(1)) > 0.7)
    assert len(set(check_choice(source, target, counted, 1))) == 2


def test_a_photo_without_a_cell_in_its_mask_stays_as_it_is():
    source, target = (random_map(6, groups=(3, 3), seed=seed) for seed in (0, 1))
    mask = torch.zeros(2, 4, 6, dtype=torch.bool)
    mask[0, 1, 2] = True
    kept, _ = MirroredAlignment()(replace(source, mask=mask), target)
    assert torch.equal(kept.values[1], source.values[1, :3])


def test_groups_are_those_of_one_half():
    source, target = (random_map(8, groups=(3, 1, 3, 1), seed=seed) for seed in (0, 1))
    kept, own = MirroredAlignment()(source, target)
    assert kept.groups == own.groups == (3, 1)
    assert {side.groups for side in MirroredAlignment()(*(random_map(8, groups=(4, 4)),) * 2)} == {()}
    reduced, other = MirroredAlignment(then=CoPCA(components=1))(source, target)
    assert reduced.groups == other.groups == (1, 1)
    expected = CoPCA(components=1)(kept, own)
    assert torch.equal(reduced.values, expected[0].values)
    assert torch.equal(other.values, expected[1].values)
    double = random_map(8, groups=(2, 2, 2, 2))
    assert MirroredAlignment(then=MirroredAlignment())(double, double)[0].values.shape[1] == 2


def test_maps_that_are_not_doubled_are_refused():
    doubled = random_map(6, groups=(3, 3))
    for groups in ((), (2, 4), (2, 2, 2), (6,)):
        plain = random_map(6, groups=groups) if groups != (6,) else random_map(6)
        for pair in ((plain, doubled), (doubled, plain)):
            with pytest.raises(InputError, match="backbone of kind 'mirrored'"):
                MirroredAlignment()(*pair)


def test_the_shape_of_a_backbone_is_checked_before_it_is_built():
    MirroredAlignment().check_spec(spec_of((4, 4)))
    seen = []

    class Looking(MirroredAlignment):
        kind: Literal["looking"] = "looking"

        def check_spec(self, spec):
            seen.append((spec.channels, spec.groups))

    for groups in ((2, 2, 2, 2), (4, 4)):
        MirroredAlignment.model_construct(then=Looking()).check_spec(spec_of(groups))
    assert seen == [(4, (2, 2)), (4, ())]
    MirroredAlignment(then=MirroredAlignment()).check_spec(spec_of((2, 2, 2, 2)))
    for transform, groups in (
        (MirroredAlignment(), ()), (MirroredAlignment(), (3, 5)), (MirroredAlignment(then=MirroredAlignment()), (4, 4)),
        (MirroredAlignment(then=MirroredAlignment()), (3, 1, 3, 1)),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="of kind 'mirrored'"):
            transform.check_spec(spec_of(groups))


def spec_of(groups):
    return FeatureSpec(
        channels=8, stride=8, prompt_width=None, max_length=0, layers=1, native_size=(32, 32), size_multiple=8,
        architecture="test", groups=groups,
    )  # fmt: skip
