"""How benchmarks count: each against a slow, literal version, and properties of all."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from jaxtyping import config

from helpers import references
from helpers.strategies import distinct_values
from sd4match.config.presets import load_preset
from sd4match.config.protocols import (
    PROTOCOLS,
    EvaluationProtocol,
    all_protocols,
    get_protocol,
    parse_protocol,
    register_protocol,
)
from sd4match.errors import ConfigError, DatasetError, InputError, ShapeError
from sd4match.geometry import Grid, pad_frame, squash_frame, to_model, to_photo
from sd4match.matching.correlation import correlate_maps
from sd4match.matching.functional.upsampled import interpolated_norm, upsampled_nearest_neighbor
from sd4match.matching.matchers import (
    BilinearNearestNeighbor,
    KernelSoftArgmax,
    NearestNeighbor,
    PixelNearestNeighbor,
    WindowSoftArgmax,
)
from sd4match.structures.tensors import FeatureMap
from sd4match.testing import pretend_accelerator, random_correlation, sizes, values

NAMES = tuple(PROTOCOLS)
LITERAL = {
    "sd4match": lambda *a, image: references.count_sd4match(*a, image=image),
    "dift": lambda *a, image: references.count_dift(*a),
    "sd-dino": lambda *a, image: references.count_padded(*a, middle=lambda stride: stride / 2 - 0.5),
    "geoaware": lambda *a, image: references.count_padded(*a, middle=lambda stride: stride / 2, window=15),
}
SIZES = st.tuples(st.integers(20, 60), st.integers(20, 60))


def model_frame(size, view, side):
    """Where the backbone put the photo: the protocol must not need it but for the photo's size."""
    return pad_frame(size, side) if view == "pad" else squash_frame(size, (side, side))


def inside(unit, size):
    return unit * torch.tensor([size[1] - 1.0, size[0] - 1.0])


@pytest.mark.parametrize("name", NAMES)
@given(st.data())
def test_each_equals_its_literal_version(name, data):
    protocol = get_protocol(name)
    cells, points = data.draw(st.integers(4, 9)), data.draw(st.integers(1, 3))
    source, target = (data.draw(distinct_values((1, 6, cells, cells))).double() for _ in range(2))
    sizes = [data.draw(SIZES) for _ in range(2)]
    places = [inside(data.draw(values((1, points, 2), low=0.0)), size).double() for size in sizes]
    box = (3.0, 2.0, *(inside(data.draw(values((2,), low=0.5)), sizes[1])).tolist())
    image = data.draw(st.sampled_from([768, 16 * cells]))
    frames = [model_frame(size, protocol.frame, image) for size in sizes]
    maps = [
        FeatureMap(values, Grid((frame,), (cells, cells)))
        for values, frame in zip((source, target), frames, strict=True)
    ]

    correlation = protocol.correlate(*maps, places[0])
    found = protocol.matcher.build()(correlation).points
    correct = protocol.correct(
        found.double(), places[1].double(), torch.ones(1, points, dtype=torch.bool), photo_sizes=[sizes[1]], boxes=[box]
    )
    plain = [one[0].tolist() for one in places]
    if name == "dift":  # at the border, interpolated features of neighboring pixels may be equal: either is right
        for point in plain[0]:
            cosines = references.upsampled_cosines(source[0], target[0], sizes, point)
            assume((cosines >= cosines.max() - 1e-12).sum() == 1)
    expected, judged = LITERAL[name](source[0], target[0], sizes, plain, box, protocol.alphas, image=image)
    torch.testing.assert_close(
        to_model(found, [protocol.error_frame_of(sizes[1])])[0].double(),
        torch.tensor(expected).double(),
        atol=2e-3,
        rtol=1e-4,
    )
    assert correct[0].tolist() == judged


def test_the_offsets_at_60_by_60_are_the_published_ones():
    frame = pad_frame((600, 840), 840)
    features = FeatureMap(torch.zeros(1, 2, 60, 60), Grid((frame,), (60, 60)))
    assert get_protocol("sd-dino").aligned(features).grid.offset == 6.5
    assert get_protocol("geoaware").aligned(features).grid.offset == 7.0
    assert get_protocol("geoaware").aligned(features).grid.frames == (frame,)


@st.composite
def judged_pairs(draw):
    """Photo sizes, truth, guesses, visibility and boxes of a batch."""
    batch, points = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    sizes = [draw(SIZES) for _ in range(batch)]
    truth = torch.stack([inside(draw(values((points, 2), low=0.0)), size) for size in sizes]).double()
    guess = truth + draw(values((batch, points, 2), low=-9.0, high=9.0)).double()
    visible = torch.tensor([[draw(st.booleans()) for _ in range(points)] for _ in range(batch)])
    boxes = [(1.0, 2.0, 1.0 + draw(st.integers(5, 30)), 2.0 + draw(st.integers(5, 30))) for _ in range(batch)]
    return sizes, truth, guess, visible, boxes


def judge(protocol, pairs, **changes):
    sizes, truth, guess, visible, boxes = pairs
    fields = {"photo_sizes": sizes, "boxes": boxes, **changes}
    return protocol.correct(guess, truth, visible, **fields)


@pytest.mark.parametrize("name", NAMES)
@given(judged_pairs(), st.sampled_from(["box", "photo"]))
def test_properties_of_every_way_to_count(name, pairs, reference):
    protocol = get_protocol(name)
    sizes, truth, guess, visible, boxes = pairs
    correct = judge(protocol, pairs, reference=reference)
    assert (correct[..., 1:] >= correct[..., :-1]).all()  # alphas ascend
    assert not correct[~visible].any()
    perfect = judge(protocol, (sizes, truth, truth, visible, boxes), reference=reference)
    assert (perfect == visible[..., None]).all()
    order = torch.randperm(truth.shape[1], generator=torch.Generator().manual_seed(0))
    shuffled = judge(protocol, (sizes, truth[:, order], guess[:, order], visible[:, order], boxes), reference=reference)
    assert (shuffled == correct[:, order]).all()
    more = torch.nn.functional.pad
    padded = (
        sizes,
        more(truth, (0, 0, 0, 2)),
        more(guess, (0, 0, 0, 2), value=torch.nan),
        more(visible, (0, 2)),
        boxes,
    )
    assert (judge(protocol, padded, reference=reference)[:, :-2] == correct).all()


@pytest.mark.parametrize("name", NAMES)
@given(judged_pairs(), st.integers(2, 5))
def test_joint_scaling_changes_nothing(name, pairs, factor):
    protocol = get_protocol(name).derive(clamp_truth=False)
    sizes, truth, guess, visible, boxes = pairs
    frames = [protocol.error_frame_of(size) for size in sizes]
    distance = (to_model(guess, frames) - to_model(truth, frames)).norm(dim=-1)
    corners = to_model(torch.tensor(boxes).double().unflatten(1, (2, 2)), frames)
    length = (corners[:, 1] - corners[:, 0]).amax(-1)[:, None]
    for alpha in protocol.alphas:
        assume(((distance / (alpha * length) - 1).abs() > 1e-6).all())
    larger = (
        [(h * factor, w * factor) for h, w in sizes], truth * factor, guess * factor, visible,
        [tuple(side * factor for side in box) for box in boxes],
    )  # fmt: skip
    assert (judge(protocol, larger) == judge(protocol, pairs)).all()


@pytest.mark.parametrize("name", NAMES)
@given(st.tuples(st.integers(8, 4000), st.integers(8, 4000)), values((2, 4, 2), low=0.0))
def test_frames_there_and_back_to_a_thousandth_of_a_pixel(name, size, unit):
    frames = [get_protocol(name).error_frame_of(size)] * 2
    points = inside(unit, size)
    back = to_photo(to_model(points.double(), frames), frames)
    assert (back - points).abs().max() < 1e-3
    there = to_model(points, frames)
    height, width = frames[0].model_size
    assert (there >= -0.5).all()
    assert (there <= torch.tensor([width + 0.5, height + 0.5])).all()


def test_lengths_follow_the_data_set_or_the_rule():
    truth, guess = torch.zeros(1, 1, 2), torch.tensor([[[9.0, 0.0]]])
    seen, box = torch.ones(1, 1, dtype=torch.bool), [(0.0, 0.0, 50.0, 10.0)]
    protocol = get_protocol("dift").derive(alphas=(0.1,))
    options = {"photo_sizes": [(40, 100)], "boxes": box}
    assert not protocol.correct(guess, truth, seen, **options).any()  # 5 pixels allowed
    assert protocol.correct(guess, truth, seen, **options, reference="photo").all()  # 10 pixels
    assert protocol.derive(reference="photo").correct(guess, truth, seen, **options).all()
    assert not protocol.derive(reference="box").correct(guess, truth, seen, **options, reference="photo").any()
    with pytest.raises(DatasetError, match="needs the box of every target object"):
        protocol.correct(guess, truth, seen, photo_sizes=[(40, 100)], boxes=[None])


def test_strict_and_inclusive_at_the_border():
    truth, seen = torch.zeros(1, 1, 2).double(), torch.ones(1, 1, dtype=torch.bool)
    options = {"photo_sizes": [(100, 100)], "boxes": [(0.0, 0.0, 50.0, 50.0)]}
    on_it = torch.tensor([[[5.0, 0.0]]]).double()
    assert get_protocol("dift").derive(alphas=(0.1,)).correct(on_it, truth, seen, **options).all()
    assert not get_protocol("dift").derive(alphas=(0.1,), inclusive=False).correct(on_it, truth, seen, **options).any()


# deriving and naming


def test_what_is_derived_is_not_passed_off_as_published():
    dift = get_protocol("dift")
    assert dift.derive(alphas=(0.2, 0.3)).is_published
    changed = dift.derive(inclusive=False)
    assert (changed.name, changed.is_published) == ("dift*", False)
    assert changed.derive(alphas=(0.5,)).name == "dift*"
    assert dift.derive(name="mine", inclusive=False).name == "mine"
    assert changed.derive(inclusive=True) == dift
    for known in (*PROTOCOLS.values(), changed, dift.derive(name="mine", inclusive=False)):
        assert parse_protocol(known.model_dump(mode="json")) == known
    with pytest.raises(ConfigError, match="'geoaware' is another protocol"):
        dift.derive(name="geoaware")
    for changes, message in (
        ({"alphas": ()}, "alphas"),
        ({"alphas": (0.0,)}, "alphas must be positive"),
        ({"alphas": (0.1, 0.1)}, "different"),
        ({"side": 100}, "side = 100 does not go with error_frame = 'photo'"),
        ({"inclusiv": True}, "unknown field 'inclusiv'; did you mean 'inclusive'"),
        ({"error_frame": "pad", "side": 840}, "frame = 'squash' does not go with error_frame = 'pad'"),
    ):
        with pytest.raises(ConfigError, match=message):
            dift.derive(**changes)


def test_a_registered_protocol_is_named_as_the_published_ones_are(monkeypatch):
    monkeypatch.setattr("sd4match.config.protocols._registered", {})
    mine = register_protocol(get_protocol("dift").derive(name="mine", inclusive=False))
    assert get_protocol("mine") is mine
    assert list(all_protocols())[-1] == "mine"
    assert not mine.is_published
    assert load_preset("text", ["evaluation.protocol=mine"]).evaluation.protocol == mine
    assert load_preset("text", ["evaluation.protocol={name: mine, alphas: [0.3]}"]).evaluation.protocol.alphas == (0.3,)
    assert mine.derive(alphas=(0.3,)).name == "mine"
    assert mine.derive(clamp_truth=True).name == "mine*"
    assert parse_protocol(mine.model_dump(mode="json")) == mine
    replaced = register_protocol(mine.derive(name="other").derive(name="mine*").model_copy(update={"name": "mine"}))
    assert get_protocol("mine") is replaced
    with pytest.raises(ConfigError, match="'mine' is another protocol"):
        get_protocol("dift").derive(name="mine")
    for name in ("dift", "mine*"):
        with pytest.raises(ConfigError, match="is another protocol; give yours a name of its own"):
            register_protocol(mine.model_copy(update={"name": name}))
    for name in ("a/b", "two\nlines", " mine"):
        with pytest.raises(ConfigError, match="the name of a protocol is of letters"):
            register_protocol(mine.model_copy(update={"name": name}))
    with pytest.raises(ConfigError, match="only an EvaluationProtocol can be registered"):
        register_protocol({"name": "mine"})


def test_a_config_names_or_derives_its_protocol():
    config = load_preset("text", ["evaluation.protocol=dift", "evaluation.protocol.alphas=[0.02]"])
    assert config.evaluation.protocol == get_protocol("dift").derive(alphas=(0.02,))
    assert load_preset("text", ["evaluation.protocol={inclusive: false}"]).evaluation.protocol.name == "sd4match*"
    with pytest.raises(ConfigError, match="unknown protocol 'dfit'; did you mean 'dift'"):
        load_preset("text", ["evaluation.protocol=dfit"])
    with pytest.raises(ConfigError, match="a protocol is a name or its fields"):
        load_preset("text", ["evaluation.protocol=3"])
    with pytest.raises(ConfigError, match=r"'geoaware' needs photos .* set backbone\.frame=pad"):
        load_preset("text", ["evaluation.protocol=geoaware"])
    padded = load_preset("text", ["evaluation.protocol=geoaware", "backbone.frame=pad"])
    assert padded.backbone.spec().frame == "pad"
    with pytest.raises(ConfigError, match="alignment 'patch' needs a square frame"):
        EvaluationProtocol(name="x", error_frame="photo", side=None, alignment="patch").aligned(
            random_correlation().source
        )


# the pixel matcher and query modes


@given(st.data())
def test_upsampled_arg_max_without_upsampling_features(data):
    """Norms and winners equal those of features that are really interpolated, whatever the sizes."""
    cells = data.draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    pixels = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    features, queries = data.draw(distinct_values((5, *cells))).double(), data.draw(distinct_values((3, 5))).double()
    big = torch.nn.functional.interpolate(features[None], size=pixels, mode="bilinear", align_corners=False)[0]
    columns, rows = (
        (torch.arange(p).double() + 0.5) * c / p - 0.5 for p, c in zip(pixels[::-1], cells[::-1], strict=True)
    )
    torch.testing.assert_close(interpolated_norm(features, columns, rows), big.norm(dim=0), atol=1e-9, rtol=1e-9)
    cosine = torch.einsum("nc,chw->nhw", queries, big) / (queries.norm(dim=1)[:, None, None] * big.norm(dim=0))
    found = upsampled_nearest_neighbor(queries, features, columns, rows).long()
    for plane, (x, y) in zip(cosine, found.tolist(), strict=True):
        assert plane[y, x] >= plane.max() - 1e-9
    single = upsampled_nearest_neighbor(queries.float(), features.float(), columns, rows).long()
    for plane, (x, y) in zip(cosine, single.tolist(), strict=True):
        assert plane[y, x] >= plane.max() - 1e-5


def test_pixel_matcher_honors_the_alignment_and_finds_the_same_place_in_the_same_photo():
    values = torch.nn.functional.normalize(torch.randn(1, 32, 6, 6, generator=torch.Generator().manual_seed(3)), dim=1)
    points = torch.tensor([[[10.0, 7.0], [40.0, 25.0], [33.0, 12.0]]])  # nearer to the border all pixels are equal
    for protocol in (get_protocol("dift"), get_protocol("sd4match")):
        features = FeatureMap(values, Grid((squash_frame((32, 48), (96, 96)),), (6, 6)))
        aligned = protocol.aligned(features)
        found = PixelNearestNeighbor()(correlate_maps(aligned, aligned, points))
        scale = aligned.grid.frames[0].scale
        assert ((found.points - points).abs() <= torch.tensor([0.5 / scale[0], 0.5 / scale[1]]) + 1e-4).all(), (
            protocol.name
        )
        assert ((found.scores > 0) & (found.scores <= 1)).all()


def test_query_modes_read_where_they_say():
    features = FeatureMap(torch.zeros(1, 2, 6, 6), Grid((squash_frame((60, 60), (60, 60)),), (6, 6), "centers"))
    points = torch.tensor([[[19.9, 20.0], [59.0, 0.4]]])
    cells = {
        mode: correlate_maps(features, features, points, query_mode=mode).query_cells
        for mode in ("bilinear", "floor", "pixel")
    }
    assert cells["floor"].tolist() == [[[1, 2], [5, 0]]]
    torch.testing.assert_close(cells["pixel"], torch.tensor([[[1.45, 1.55], [5.45, -0.45]]]))
    torch.testing.assert_close(cells["bilinear"], torch.tensor([[[1.54, 1.55], [5.45, -0.41]]]))
    blended = BilinearNearestNeighbor()(correlate_maps(features, features, points, query_mode="floor"))
    plain = NearestNeighbor()(correlate_maps(features, features, points, query_mode="floor"))
    torch.testing.assert_close(blended.points, plain.points)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"photo_sizes": [(40, 40), (40, 40)]}, ShapeError, "got 2 sizes and 1 boxes"),
        ({"boxes": [None, None]}, ShapeError, "got 1 sizes and 2 boxes"),
        ({"boxes": []}, ShapeError, "got 1 sizes and 0 boxes"),
        ({"boxes": [None]}, DatasetError, "needs the box"),
        ({"boxes": [(0.0, 0.0, math.inf, 9.0)]}, DatasetError, "box .* must be finite"),
        ({"boxes": [(9.0, 0.0, 1.0, 9.0)]}, DatasetError, "inside out"),
        ({"boxes": [(9.0, 0.0, 1.0)]}, InputError, "boxes must be"),
        ({"reference": "side"}, InputError, "reference"),
        ({"visible": torch.ones(1, 2, dtype=torch.long)}, InputError, "visible"),
        ({"target": torch.zeros(1, 1, 2)}, ShapeError, "target must be"),
        ({"target": torch.zeros(1, 2, 2, dtype=torch.bool)}, InputError, "target must be"),
        ({"predicted": torch.zeros(1, 2, 2, dtype=torch.bool)}, InputError, "predicted must be"),
        ({"visible": torch.ones(1, 1, dtype=torch.bool)}, ShapeError, "visible must be"),
        ({"predicted": torch.zeros(2, 2)}, ShapeError, "predicted"),
    ],
)
def test_what_does_not_belong_to_the_pairs_is_refused(changes, error, message):
    arguments = {
        "predicted": torch.zeros(1, 2, 2), "target": torch.zeros(1, 2, 2),
        "visible": torch.ones(1, 2, dtype=torch.bool), "photo_sizes": [(40, 40)],
        "boxes": [(0.0, 0.0, 9.0, 9.0)], "reference": "box",
    }  # fmt: skip
    config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(error, match=message):
            get_protocol("sd4match").correct(**{**arguments, **changes})
    finally:
        config.update("jaxtyping_disable", False)


@given(st.data())
def test_upsampled_arg_max_of_equal_or_absent_features_is_a_pixel(data):
    """Where no pixel is better than the others, any of them is right, and none is outside the photo."""
    size, pixels = data.draw(sizes(max_side=7)), data.draw(sizes(max_side=40))
    features, queries = data.draw(values((5, *size))), data.draw(values((3, 5)))
    columns, rows = (torch.linspace(0, cells - 1, count) for cells, count in zip(size[::-1], pixels[::-1], strict=True))
    found = upsampled_nearest_neighbor(queries, features, columns, rows)
    assert ((found >= 0) & (found <= torch.tensor([pixels[1] - 1, pixels[0] - 1]))).all()
    assert torch.equal(found, found.round())


def test_truth_outside_the_frame_is_moved_to_its_border_by_those_that_say_so():
    frame = EvaluationProtocol(name="x", side=100)  # of a photo of 100 x 100, one to one
    truth = torch.tensor([[[-5.0, 50.0], [50.0, 150.0], [150.0, -5.0], [99.0, 99.0]]])
    border = torch.tensor([[[0.0, 50.0], [50.0, 99.0], [99.0, 0.0], [99.0, 99.0]]])
    options = {"photo_sizes": [(100, 100)], "boxes": [(0.0, 0.0, 1.0, 1.0)]}
    seen = torch.ones(1, 4, dtype=torch.bool)
    assert frame.correct(border, truth, seen, **options).all()
    near = frame.correct(border + torch.tensor([0.16, 0.0]), truth, seen, **options)
    assert near.tolist() == [[[False] * 3] * 4]
    kept = frame.derive(clamp_truth=False)
    assert kept.correct(truth, truth, seen, **options).all()
    assert kept.correct(border, truth, seen, **options).any(dim=-1).tolist() == [[False, False, False, True]]
    photo = EvaluationProtocol(name="y", error_frame="photo", side=None)
    wide = {"photo_sizes": [(30, 60)], "boxes": [(0.0, 0.0, 1.0, 1.0)]}
    corner = torch.tensor([[[59.0, 29.0]]])
    assert photo.correct(corner, corner + 7, seen[:, :1], **wide).all()


def test_lengths_are_the_longer_side_of_each_box_in_its_own_frame():
    protocol = EvaluationProtocol(name="x", side=100, alphas=(0.1,))
    truth, seen = torch.full((2, 1, 2), 20.0), torch.ones(2, 1, dtype=torch.bool)
    guess = truth + torch.tensor([[[0.0, 1.0]], [[0.0, 1.0]]])  # 1 and 0.5 pixels of the frame
    options = {"photo_sizes": [(100, 100), (200, 50)], "boxes": [(10.0, 10.0, 20.0, 11.0), (0.0, 0.0, 2.0, 9.0)]}
    assert protocol.correct(guess, truth, seen, **options).flatten().tolist() == [True, False]
    options["boxes"] = [(10.0, 10.0, 19.0, 11.0), (0.0, 0.0, 2.0, 10.0)]
    assert protocol.correct(guess, truth, seen, **options).flatten().tolist() == [False, True]
    points = {"photo_sizes": [(100, 100)], "boxes": [(5.0, 5.0, 5.0, 5.0)]}  # a box without extent allows equality
    assert protocol.correct(truth[:1], truth[:1], seen[:1], **points).all()
    tiny = torch.tensor([[[20.0 + 0.9e-6, 20.0]]], dtype=torch.float64)
    box = {"photo_sizes": [(100, 100)], "boxes": [(1000.0, 0.1, 1000.0 + 1e-5, 0.1)]}
    assert protocol.correct(tiny, truth[:1].double(), seen[:1], **box).all()  # in float64, whatever the points are


def test_the_data_set_says_box_unless_it_says_photo():
    protocol, seen = EvaluationProtocol(name="x", side=100, alphas=(0.1,)), torch.ones(1, 1, dtype=torch.bool)
    options = {"photo_sizes": [(100, 100)], "boxes": [(0.0, 0.0, 10.0, 10.0)]}
    truth, guess = torch.zeros(1, 1, 2), torch.tensor([[[5.0, 0.0]]])
    found = {reference: protocol.derive(reference=reference).correct(guess, truth, seen, **options).item()
             for reference in ("data", "box", "photo")}  # fmt: skip
    assert found == {"data": False, "box": False, "photo": True}
    with pytest.raises(InputError, match="reference"):
        protocol.derive(reference="box").correct(guess, truth, seen, **options, reference="side")


def test_the_default_is_the_papers():
    fields = {
        "name": "sd4match", "frame": "squash", "error_frame": "squash", "side": 768, "alphas": (0.05, 0.1, 0.15),
        "inclusive": True, "clamp_truth": True, "reference": "data", "alignment": "corners", "cell_shift": 0.0,
        "query_mode": "bilinear", "matcher": KernelSoftArgmax(sigma=7.0, temperature=0.04), "average": "image",
    }  # fmt: skip
    assert EvaluationProtocol() == get_protocol("sd4match") == EvaluationProtocol(**fields)
    four = (0.01, 0.05, 0.1, 0.15)
    dift = {
        "name": "dift", "error_frame": "photo", "side": None, "alphas": four, "clamp_truth": False,
        "alignment": "centers", "query_mode": "pixel", "matcher": PixelNearestNeighbor(temperature=0.04),
    }  # fmt: skip
    padded = {
        "frame": "pad", "error_frame": "pad", "side": 840, "alphas": four, "inclusive": False, "clamp_truth": False,
        "alignment": "patch", "query_mode": "floor",
    }  # fmt: skip
    window = WindowSoftArgmax(window=15, temperature=0.02)
    assert get_protocol("dift") == EvaluationProtocol(**{**fields, **dift})
    assert get_protocol("sd-dino") == EvaluationProtocol(
        **{**fields, **padded, "name": "sd-dino", "cell_shift": -0.5, "matcher": NearestNeighbor(temperature=0.04),
           "average": "category_point"}
    )  # fmt: skip
    assert get_protocol("geoaware") == EvaluationProtocol(**{**fields, **padded, "name": "geoaware", "matcher": window})


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ({"side": 2}, {"side": 1}),
        ({"side": 16_384}, {"side": 16_385}),
        ({"alphas": (9.99,)}, {"alphas": (10.0,)}),
        ({"alphas": (0.001, 9.5)}, {"alphas": (0.1, 10.5)}),
        ({"alphas": (0.1, 0.2)}, {"alphas": (0.2, 0.0)}),
        ({"alphas": tuple(i / 100 for i in range(1, 101))}, {"alphas": tuple(i / 100 for i in range(1, 102))}),
        ({"frame": "pad", "error_frame": "pad"}, {"frame": "pad"}),
        ({"frame": "pad", "error_frame": "photo", "side": None}, {"error_frame": "photo"}),
        ({"frame": "squash", "error_frame": "photo", "side": None}, {"side": None}),
        ({"frame": "squash", "error_frame": "squash"}, {"error_frame": "pad"}),
    ],
)
def test_fields_have_bounds_and_go_together(inside, outside):
    made = EvaluationProtocol(name="x", **inside)
    assert parse_protocol(made.model_dump()) == made
    with pytest.raises(ConfigError):
        EvaluationProtocol(name="x", **outside)


def test_protocols_are_found_and_named():
    for wrong in (3, None, ["dift"]):
        with pytest.raises(ConfigError, match="name of a protocol must be text"):
            get_protocol(wrong)
    assert parse_protocol(get_protocol("dift")) is get_protocol("dift")
    assert parse_protocol("dift") is get_protocol("dift")
    assert parse_protocol({"kind": "dift"}) == get_protocol("dift")
    assert parse_protocol({"kind": "dift", "name": "geoaware"}) == get_protocol("geoaware")
    assert parse_protocol({"alphas": (0.2,)}) == get_protocol("sd4match").derive(alphas=(0.2,))
    assert parse_protocol({"name": "dift*", "inclusive": False}) == get_protocol("dift").derive(inclusive=False)
    for wrong in ({"name": "mine"}, {"name": 3}, {"name": "mine", "alphas": (0.1,)}):
        with pytest.raises(ConfigError):
            parse_protocol(wrong)
    for wrong in ({1: 2}, {"name": "dift", 1: 2}, [], 3):
        with pytest.raises(ConfigError, match="a protocol is a name or its fields"):
            parse_protocol(wrong)
    mine = get_protocol("dift").derive(name="mine", inclusive=False)
    assert not mine.is_published
    assert mine.derive(alphas=(0.2,)).name == "mine"
    assert mine.derive(inclusive=True).name == "mine*"
    assert mine.derive(name="mine") == mine


def test_alignments_answer_with_another_grid():
    frame = pad_frame((20, 40), 96)
    own = Grid((frame,), (6, 8), "patch", 3.0)
    features = FeatureMap(torch.zeros(1, 2, 6, 8), own)
    corners = get_protocol("sd4match").aligned(features).grid
    assert (corners.alignment, corners.offset, corners.frames) == ("corners", None, own.frames)
    centers = get_protocol("dift").aligned(features).grid
    assert (centers.alignment, centers.offset) == ("centers", None)
    assert centers.frames[0].model_size == (20, 40)
    patch = get_protocol("sd-dino").aligned(features).grid
    assert (patch.alignment, patch.offset) == ("patch", 840 / 8 / 2 - 0.5)
    assert patch.frames == (pad_frame((20, 40), 840),)
    with pytest.raises(ConfigError, match="alignment 'patch' needs a square frame"):
        EvaluationProtocol(name="x", error_frame="photo", side=None, alignment="patch").aligned(features)
    squashed = EvaluationProtocol(name="x", side=100).error_frame_of((20, 40))
    assert squashed == squash_frame((20, 40), (100, 100))


def test_points_of_the_source_are_read_as_the_protocol_says():
    made = random_correlation()
    for name in NAMES:
        found = get_protocol(name).correlate(made.source, made.target, made.query_points)
        assert torch.equal(
            found.query_cells, found.source.grid.query_cells(made.query_points, get_protocol(name).query_mode)
        )


@pytest.mark.parametrize(
    ("box", "message"),
    [((9.0, 0.0, 8.0, 9.0), "inside out"), ((0.0, 9.0, 9.0, 8.0), "inside out"), ((0.0, 0.0, "a", 9.0), "box"),
     ((math.nan, 0.0, 1.0, 1.0), "must be finite")],
)  # fmt: skip
def test_boxes_are_left_top_right_bottom(box, message):
    zeros, seen = torch.zeros(2, 1, 2), torch.ones(2, 1, dtype=torch.bool)
    config.update("jaxtyping_disable", True)
    try:
        with pytest.raises((DatasetError, InputError), match=message):
            get_protocol("sd4match").correct(
                zeros, zeros, seen, photo_sizes=[(9, 9)] * 2, boxes=[(0.0, 0.0, 1.0, 1.0), box]
            )
        with pytest.raises(DatasetError, match="needs the box"):
            get_protocol("sd4match").correct(
                zeros, zeros, seen, photo_sizes=[(9, 9)] * 2, boxes=[(0.0, 0.0, 1.0, 1.0), None]
            )
    finally:
        config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("name", NAMES)
def test_points_are_judged_where_they_are(name):
    truth, guess = torch.rand(2, 3, 2, generator=torch.Generator().manual_seed(0)) * 30, torch.full((2, 3, 2), 15.0)
    options = {"photo_sizes": [(30, 40), (50, 30)], "boxes": [(0.0, 0.0, 90.0, 50.0), (1.0, 2.0, 70.0, 90.0)]}
    seen = torch.tensor([[True, False, True], [True, True, True]])
    expected = get_protocol(name).correct(guess, truth, seen, **options)
    assert expected.any()
    with pretend_accelerator() as device:
        found = get_protocol(name).correct(guess.to(device), truth.to(device), seen.to(device), **options)
        assert found.device == device
        assert torch.equal(found.cpu(), expected)
