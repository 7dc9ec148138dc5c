"""Eight categories of the synthetic data set: their parts and their named keypoints.

Every object has its own coordinates, x to the right and y down, inside roughly [-1, 1] x [-1, 1]. A category is a
function from a random generator to an `Anatomy`, so that no two instances have the same shape. Objects seen from the
side (fish, bird, car, boat, cup) face left here and may be mirrored by the scene; frontal ones (house, robot, face) are
not mirrored, because their left points would become right points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Polygon = npt.NDArray[np.float64]
"""(n, 2) corners, (x, y), in object coordinates."""


@dataclass(frozen=True)
class Part:
    """Part of a drawing: its name in captions and its outline. Later parts cover earlier ones."""

    word: str
    outline: Polygon


@dataclass(frozen=True)
class Anatomy:
    """Instance of a category before it is posed: parts in drawing order, and keypoints by name."""

    parts: tuple[Part, ...]
    points: dict[str, tuple[float, float]]


def ellipse(x: float, y: float, rx: float, ry: float, *, tilt: float = 0.0, corners: int = 20) -> Polygon:
    """Return the outline of an ellipse around (x, y), rotated by `tilt` radians."""
    angle = np.linspace(0.0, 2.0 * np.pi, corners, endpoint=False)
    across, down = rx * np.cos(angle), ry * np.sin(angle)
    return np.stack(
        [x + across * np.cos(tilt) - down * np.sin(tilt), y + across * np.sin(tilt) + down * np.cos(tilt)], axis=1
    )


def quad(left: float, top: float, right: float, bottom: float, *, taper: float = 0.0) -> Polygon:
    """Return a box whose top edge is shorter than its bottom edge by `taper` on each side."""
    return np.array([[left + taper, top], [right - taper, top], [right, bottom], [left, bottom]])


def shape(*corners: tuple[float, float]) -> Polygon:
    """Return the polygon of some corners (x, y)."""
    return np.array(corners)


def limb(x0: float, y0: float, x1: float, y1: float, width: float) -> Polygon:
    """Return a straight bar from (x0, y0) to (x1, y1)."""
    along = np.array([x1 - x0, y1 - y0])
    across = np.array([-along[1], along[0]]) / max(float(np.hypot(*along)), 1e-6) * width / 2
    start, end = np.array([x0, y0]), np.array([x1, y1])
    return np.stack([start + across, end + across, end - across, start - across])


def fish(rng: np.random.Generator) -> Anatomy:
    """Draw a fish from its side."""
    a, b = rng.uniform(0.6, 0.75), rng.uniform(0.28, 0.45)
    spread, reach, fin, eye = (
        rng.uniform(0.3, 0.5),
        rng.uniform(0.9, 1.05),
        rng.uniform(0.22, 0.4),
        rng.uniform(0.07, 0.11),
    )
    stripe = rng.uniform(0.0, 0.25)
    return Anatomy(
        (
            Part("tail", shape((0.8 * a, 0.0), (reach, -spread), (0.85 * reach, 0.0), (reach, spread))),
            Part("fin", shape((-0.25, -0.8 * b), (0.2, -b - fin), (0.35, -0.75 * b))),
            Part("fin", shape((-0.15, 0.8 * b), (0.15, b + 0.8 * fin), (0.3, 0.8 * b))),
            Part("body", ellipse(0, 0, a, b)),
            Part("stripe", quad(stripe - 0.07, -0.75 * b, stripe + 0.07, 0.75 * b)),
            Part("mouth", ellipse(-a + 0.03, 0.06, 0.1, 0.06)),
            Part("eye", ellipse(-0.62 * a, -0.28 * b, eye, eye)),
        ),
        {
            "mouth": (-a, 0.06), "eye": (-0.62 * a, -0.28 * b), "back fin": (0.2, -b - fin),
            "belly fin": (0.15, b + 0.8 * fin), "tail root": (0.85 * a, 0.0), "upper tail tip": (reach, -spread),
            "lower tail tip": (reach, spread), "stripe": (stripe, 0.0),
        },
    )  # fmt: skip


def bird(rng: np.random.Generator) -> Anatomy:
    """Draw a standing bird from its side."""
    a, b, tilt = rng.uniform(0.45, 0.55), rng.uniform(0.26, 0.36), rng.uniform(-0.1, 0.25)
    head, hx, hy = rng.uniform(0.19, 0.25), rng.uniform(-0.58, -0.48), rng.uniform(-0.5, -0.36)
    beak, wing, foot = rng.uniform(0.2, 0.34), rng.uniform(0.38, 0.52), rng.uniform(0.75, 0.92)
    tail_x, tail_y = rng.uniform(0.82, 1.0), rng.uniform(-0.15, 0.3)
    throat = hx - 0.8 * head
    wx, wy = 0.05 + wing * np.cos(0.35 + tilt), -0.02 + wing * np.sin(0.35 + tilt)
    return Anatomy(
        (
            Part("leg", limb(-0.1, 0.2, -0.14, foot, 0.07)),
            Part("leg", limb(0.14, 0.2, 0.12, foot, 0.07)),
            Part("tail", shape((0.3, -0.05), (tail_x, tail_y - 0.16), (tail_x, tail_y + 0.12), (0.35, 0.18))),
            Part("body", ellipse(0, 0, a, b, tilt=tilt)),
            Part("head", ellipse(hx, hy, head, head)),
            Part("beak", shape((throat, hy - 0.09), (hx - head - beak, hy + 0.04), (throat, hy + 0.12))),
            Part("wing", ellipse(0.05, -0.02, wing, 0.17, tilt=0.35 + tilt)),
            Part("eye", ellipse(hx - 0.05, hy - 0.05, 0.07, 0.07)),
        ),
        {
            "beak tip": (hx - head - beak, hy + 0.04), "eye": (hx - 0.05, hy - 0.05), "head top": (hx, hy - head),
            "wing tip": (float(wx), float(wy)), "wing root": (0.05 - 0.7 * wing, -0.02 - 0.24 * wing),
            "tail tip": (tail_x, tail_y), "front foot": (-0.14, foot), "back foot": (0.12, foot),
            "chest": (-0.85 * a, 0.05),
        },
    )  # fmt: skip


def car(rng: np.random.Generator) -> Anatomy:
    """Draw a car from its side."""
    top, waist, sill = rng.uniform(-0.58, -0.42), rng.uniform(-0.15, -0.05), rng.uniform(0.25, 0.36)
    front, back = rng.uniform(-0.5, -0.35), rng.uniform(0.5, 0.72)
    slope, wheel = rng.uniform(0.14, 0.28), rng.uniform(0.17, 0.24)
    wf, wb = rng.uniform(-0.62, -0.5), rng.uniform(0.48, 0.6)
    mid = (front + back) / 2
    return Anatomy(
        (
            Part("roof", quad(front, top, back, waist + 0.05, taper=slope)),
            Part("body", shape((-0.95, waist + 0.08), (front, waist), (0.9, waist), (0.95, sill), (-0.97, sill))),
            Part("window", quad(front + 0.12, top + 0.09, mid - 0.03, waist - 0.02, taper=0.06)),
            Part("window", quad(mid + 0.03, top + 0.09, back - 0.12, waist - 0.02, taper=0.06)),
            Part("door", quad(mid - 0.22, waist + 0.04, mid + 0.16, sill - 0.04)),
            Part("light", ellipse(-0.86, waist + 0.2, 0.1, 0.08)),
            Part("wheel", ellipse(wf, sill, wheel, wheel)),
            Part("wheel", ellipse(wb, sill, wheel, wheel)),
        ),
        {
            "front wheel": (wf, sill), "back wheel": (wb, sill), "light": (-0.86, waist + 0.2),
            "back bumper": (0.94, sill - 0.05), "front of roof": (front + slope, top),
            "back of roof": (back - slope, top),
            "foot of windscreen": (front, waist), "door": (mid - 0.03, (waist + sill) / 2),
        },
    )  # fmt: skip


def house(rng: np.random.Generator) -> Anatomy:
    """Draw a house from its front."""
    w, eaves, ground = rng.uniform(0.55, 0.75), rng.uniform(-0.2, 0.0), rng.uniform(0.7, 0.9)
    peak, lean, over = rng.uniform(-0.85, -0.6), rng.uniform(-0.15, 0.15), rng.uniform(0.08, 0.2)
    cx, ct = rng.uniform(0.3, 0.45) * w / 0.65, peak - rng.uniform(-0.1, 0.1)
    dx, dw = rng.uniform(-0.12, 0.12), rng.uniform(0.11, 0.16)
    wy, ws = eaves + rng.uniform(0.2, 0.28), rng.uniform(0.1, 0.15)
    return Anatomy(
        (
            Part("chimney", quad(cx - 0.09, ct, cx + 0.09, eaves)),
            Part("wall", quad(-w, eaves, w, ground)),
            Part("roof", shape((-w - over, eaves), (lean, peak), (w + over, eaves))),
            Part("door", quad(dx - dw, ground - 0.42, dx + dw, ground)),
            Part("window", quad(-0.62 * w - ws, wy - ws, -0.62 * w + ws, wy + ws)),
            Part("window", quad(0.62 * w - ws, wy - ws, 0.62 * w + ws, wy + ws)),
        ),
        {
            "peak": (lean, peak), "left eaves": (-w - over, eaves), "right eaves": (w + over, eaves),
            "chimney top": (cx, ct), "door": (dx, ground - 0.2), "left window": (-0.62 * w, wy),
            "right window": (0.62 * w, wy), "left foot": (-w, ground), "right foot": (w, ground),
        },
    )  # fmt: skip


def robot(rng: np.random.Generator) -> Anatomy:
    """Draw a robot from its front, with its arms raised or lowered at random."""
    hw, ht, hb = rng.uniform(0.22, 0.34), rng.uniform(-0.72, -0.62), rng.uniform(-0.3, -0.22)
    bw, bb = rng.uniform(0.28, 0.42), rng.uniform(0.25, 0.4)
    lift_l, lift_r, reach = rng.uniform(-0.35, 0.5), rng.uniform(-0.35, 0.5), rng.uniform(0.35, 0.5)
    tip_x, tip, foot, stance = (
        rng.uniform(-0.08, 0.08),
        rng.uniform(-1.0, -0.88),
        rng.uniform(0.85, 1.0),
        rng.uniform(0.16, 0.3),
    )
    eye, ey, ex = rng.uniform(0.05, 0.08), (ht + hb) / 2 - 0.03, 0.48 * hw
    return Anatomy(
        (
            Part("antenna", limb(0, ht + 0.05, tip_x, tip, 0.07)),
            Part("arm", limb(-bw + 0.05, -0.1, -bw - reach, lift_l, 0.13)),
            Part("arm", limb(bw - 0.05, -0.1, bw + reach, lift_r, 0.13)),
            Part("leg", limb(-0.15, bb - 0.05, -stance, foot, 0.16)),
            Part("leg", limb(0.15, bb - 0.05, stance, foot, 0.16)),
            Part("body", quad(-bw, -0.22, bw, bb, taper=rng.uniform(-0.05, 0.1))),
            Part("screen", quad(-0.55 * bw, -0.1, 0.55 * bw, 0.1)),
            Part("head", quad(-hw, ht, hw, hb)),
            Part("eye", ellipse(-ex, ey, eye, eye)),
            Part("eye", ellipse(ex, ey, eye, eye)),
        ),
        {
            "antenna tip": (tip_x, tip), "left eye": (-ex, ey), "right eye": (ex, ey),
            "left hand": (-bw - reach, lift_l),
            "right hand": (bw + reach, lift_r), "left foot": (-stance, foot), "right foot": (stance, foot),
            "screen": (0.0, 0.0), "neck": (0.0, hb + 0.03),
        },
    )  # fmt: skip


def face(rng: np.random.Generator) -> Anatomy:
    """Draw a face from its front."""
    a, b = rng.uniform(0.55, 0.68), rng.uniform(0.68, 0.82)
    ex, ey, eye = rng.uniform(0.22, 0.3), rng.uniform(-0.2, -0.08), rng.uniform(0.08, 0.12)
    nose, my, mw = rng.uniform(0.12, 0.22), rng.uniform(0.38, 0.48), rng.uniform(0.18, 0.32)
    ear, hair = rng.uniform(0.12, 0.2), rng.uniform(-0.55, -0.42)
    cap = ellipse(0, -0.12, a + 0.06, b - 0.02)
    cap[:, 1] = np.minimum(cap[:, 1], hair)
    return Anatomy(
        (
            Part("ear", ellipse(-a, 0.0, ear * 0.8, ear * 1.2)),
            Part("ear", ellipse(a, 0.0, ear * 0.8, ear * 1.2)),
            Part("head", ellipse(0, 0, a, b)),
            Part("hair", cap),
            Part("eye", ellipse(-ex, ey, eye, eye * 0.8)),
            Part("eye", ellipse(ex, ey, eye, eye * 0.8)),
            Part("nose", shape((0.0, ey + 0.08), (0.1, ey + 0.08 + nose), (-0.1, ey + 0.08 + nose))),
            Part("mouth", ellipse(0, my, mw, 0.07)),
        ),
        {
            "left eye": (-ex, ey), "right eye": (ex, ey), "left ear": (-a - 0.05, 0.0), "right ear": (a + 0.05, 0.0),
            "nose": (0.0, ey + 0.06 + nose), "left corner of mouth": (-mw, my), "right corner of mouth": (mw, my),
            "chin": (0.0, b), "top of hair": (0.0, -0.1 - b),
        },
    )  # fmt: skip


def boat(rng: np.random.Generator) -> Anatomy:
    """Draw a sailing boat from its side."""
    deck, keel = rng.uniform(0.2, 0.35), rng.uniform(0.65, 0.8)
    bow, stern = rng.uniform(-1.0, -0.85), rng.uniform(0.7, 0.85)
    mast, top = rng.uniform(-0.15, 0.1), rng.uniform(-0.95, -0.8)
    clew, boom = rng.uniform(0.45, 0.65), deck - rng.uniform(0.12, 0.2)
    flag, port = rng.uniform(0.25, 0.38), rng.uniform(-0.45, -0.3)
    return Anatomy(
        (
            Part("rudder", quad(stern - 0.12, deck + 0.12, stern + 0.1, keel + 0.14)),
            Part("mast", limb(mast, top, mast, deck + 0.05, 0.07)),
            Part("sail", shape((mast + 0.04, top + 0.22), (mast + clew, boom), (mast + 0.04, boom))),
            Part("flag", shape((mast, top), (mast - flag, top + 0.09), (mast, top + 0.19))),
            Part("hull", shape((bow, deck), (stern, deck), (stern - 0.12, keel), (bow + 0.4, keel))),
            Part("window", ellipse(port, (deck + keel) / 2 - 0.04, 0.09, 0.09)),
        ),
        {
            "bow": (bow, deck), "stern": (stern, deck), "mast top": (mast, top), "corner of sail": (mast + clew, boom),
            "foot of sail": (mast, boom), "flag tip": (mast - flag, top + 0.09), "keel": (bow + 0.4, keel),
            "window": (port, (deck + keel) / 2 - 0.04), "rudder": (stern + 0.04, keel + 0.08),
        },
    )  # fmt: skip


def cup(rng: np.random.Generator) -> Anatomy:
    """Draw a cup on a plate, with its handle to the right."""
    a, top, bottom = rng.uniform(0.4, 0.52), rng.uniform(-0.5, -0.38), rng.uniform(0.45, 0.58)
    foot, handle = a - rng.uniform(0.08, 0.22), rng.uniform(0.26, 0.4)
    hy, plate, band = rng.uniform(-0.08, 0.08), rng.uniform(0.75, 0.95), rng.uniform(0.0, 0.15)
    sx, sy = rng.uniform(-0.5, -0.2), rng.uniform(-1.0, -0.88)
    outer = ellipse(a - 0.02, hy, handle, 0.28)
    inner = ellipse(a - 0.02, hy, 0.55 * handle, 0.15)[::-1]
    ring = np.concatenate([outer, outer[:1], inner[-1:], inner])
    return Anatomy(
        (
            Part("plate", ellipse(0, bottom + 0.05, plate, 0.16)),
            Part("spoon", limb(sx * 0.3, top + 0.1, sx, sy, 0.11)),
            Part("handle", ring),
            Part("body", shape((-a, top), (a, top), (foot, bottom), (-foot, bottom))),
            Part("stripe", shape((-a * 0.96, band), (a * 0.96, band), (a * 0.9, band + 0.15), (-a * 0.9, band + 0.15))),
            Part("rim", ellipse(0, top, a, 0.11)),
        ),
        {
            "far side of rim": (-a, top), "handle side of rim": (a, top), "handle": (a + 0.78 * handle, hy),
            "spoon": (sx, sy), "plate far end": (-plate, bottom + 0.05), "plate handle end": (plate, bottom + 0.05),
            "stripe": (0.0, band + 0.07), "foot": (-foot, bottom),
        },
    )  # fmt: skip


ANATOMIES: dict[str, Callable[[np.random.Generator], Anatomy]] = {
    "bird": bird, "boat": boat, "car": car, "cup": cup, "face": face, "fish": fish, "house": house, "robot": robot,
}  # fmt: skip
"""Functions that draw a random instance of a category, by category name."""

FRONTAL = frozenset({"face", "house", "robot"})
"""Categories that the scene never mirrors."""


def part_words(category: str) -> tuple[str, ...]:
    """Return the names of the parts of a category in alphabetical order.

    >>> part_words("house")
    ('chimney', 'door', 'roof', 'wall', 'window')
    """
    anatomy = ANATOMIES[category](np.random.default_rng(0))
    return tuple(sorted({part.word for part in anatomy.parts}))


def point_names(category: str) -> tuple[str, ...]:
    """Return the names of the keypoints of a category in the order of every annotation.

    >>> len(point_names("fish"))
    8
    """
    return tuple(ANATOMIES[category](np.random.default_rng(0)).points)
