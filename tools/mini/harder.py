"""A world harder than that of `SyntheticPairs`, which `mini` is trained on beside it.

Eight more categories share part words with each other and with the first eight (wheel, wing, leg, eye, door, ...),
poses turn and tilt more, objects of other categories are almost as large as the named one, and more parts are textured.
"""

from __future__ import annotations

import numpy as np

from sd4match.data.synthetic.anatomy import ANATOMIES, FRONTAL, Anatomy, Part, ellipse, limb, quad, shape
from sd4match.data.synthetic.scene import World


def dog(rng: np.random.Generator) -> Anatomy:
    """Draw a standing dog from its side."""
    a, b, foot = rng.uniform(0.42, 0.55), rng.uniform(0.2, 0.3), rng.uniform(0.65, 0.85)
    hx, hy, head = -a - rng.uniform(0.08, 0.18), rng.uniform(-0.45, -0.25), rng.uniform(0.18, 0.26)
    tx, ty, ear = a + rng.uniform(0.2, 0.4), rng.uniform(-0.6, -0.1), rng.uniform(0.14, 0.28)
    front, back = -0.75 * a, 0.75 * a
    return Anatomy(
        (
            Part("tail", limb(0.85 * a, -0.08, tx, ty, 0.1)),
            Part("leg", limb(front + 0.12, 0.1, front + 0.14, foot - 0.04, 0.11)),
            Part("leg", limb(back - 0.12, 0.1, back - 0.1, foot - 0.04, 0.11)),
            Part("body", ellipse(0, 0, a, b)),
            Part("leg", limb(front, 0.1, front - 0.03, foot, 0.12)),
            Part("leg", limb(back, 0.1, back + 0.04, foot, 0.12)),
            Part("head", ellipse(hx, hy, head, 0.8 * head)),
            Part("nose", ellipse(hx - 1.1 * head, hy + 0.05, 0.11, 0.08)),
            Part("ear", ellipse(hx + 0.5 * head, hy + 0.02, 0.08, ear)),
            Part("eye", ellipse(hx - 0.3 * head, hy - 0.07, 0.06, 0.06)),
        ),
        {
            "nose": (hx - 1.1 * head, hy + 0.05), "eye": (hx - 0.3 * head, hy - 0.07), "tail tip": (tx, ty),
            "front foot": (front - 0.03, foot), "back foot": (back + 0.04, foot), "ear": (hx + 0.5 * head, hy),
        },
    )  # fmt: skip


def plane(rng: np.random.Generator) -> Anatomy:
    """Draw an airplane from its side."""
    b, sweep, span = rng.uniform(0.13, 0.2), rng.uniform(0.25, 0.5), rng.uniform(0.35, 0.6)
    fin, root, port = rng.uniform(0.35, 0.5), rng.uniform(-0.2, 0.05), rng.uniform(0.045, 0.065)
    windows = tuple(Part("window", ellipse(x, -0.25 * b, port, port)) for x in (-0.45, -0.15, 0.15, 0.45))
    return Anatomy(
        (
            Part("tail", shape((0.6, -0.5 * b), (0.95, -fin), (1.0, -fin), (0.92, -0.2 * b))),
            Part("wing", shape((root - 0.1, 0), (root + sweep, -span), (root + sweep + 0.15, -span), (root + 0.25, 0))),
            Part("wheel", ellipse(-0.5, b + 0.12, 0.09, 0.09)),
            Part("wheel", ellipse(0.25, b + 0.12, 0.09, 0.09)),
            Part("body", ellipse(0, 0, 0.97, b)),
            Part("nose", ellipse(-0.87, 0, 0.12, 0.55 * b)),
            *windows,
            Part("wing", shape((root - 0.1, 0), (root + sweep, span), (root + sweep + 0.15, span), (root + 0.25, 0))),
        ),
        {
            "nose": (-0.97, 0.0), "tail tip": (0.97, -fin), "near wing tip": (root + sweep + 0.07, span),
            "far wing tip": (root + sweep + 0.07, -span), "front wheel": (-0.5, b + 0.12),
        },
    )  # fmt: skip


def truck(rng: np.random.Generator) -> Anatomy:
    """Draw a truck from its side."""
    top, cab, floor = rng.uniform(-0.65, -0.45), rng.uniform(-0.35, -0.15), rng.uniform(0.25, 0.36)
    split, wheel = rng.uniform(-0.45, -0.25), rng.uniform(0.16, 0.22)
    return Anatomy(
        (
            Part("crate", quad(split + 0.05, top, 0.95, floor)),
            Part("stripe", quad(split + 0.05, -0.1, 0.95, 0.05)),
            Part("body", shape((-0.95, 0.02), (split - 0.25, cab), (split, cab), (split, floor), (-0.97, floor))),
            Part("window", shape((-0.8, 0), (split - 0.22, cab + 0.06), (split - 0.08, cab + 0.06), (split - 0.08, 0))),
            Part("door", quad(split - 0.24, 0.04, split - 0.03, floor - 0.03)),
            Part("light", ellipse(-0.88, 0.14, 0.08, 0.07)),
            Part("wheel", ellipse(-0.65, floor, wheel, wheel)),
            Part("wheel", ellipse(0.25, floor, wheel, wheel)),
            Part("wheel", ellipse(0.68, floor, wheel, wheel)),
        ),
        {
            "front wheel": (-0.65, floor), "last wheel": (0.68, floor), "light": (-0.88, 0.14),
            "back of roof": (0.95, top), "front of roof": (split, cab),
        },
    )  # fmt: skip


def teapot(rng: np.random.Generator) -> Anatomy:
    """Draw a teapot with its spout to the left and its handle to the right."""
    a, b, rim = rng.uniform(0.42, 0.55), rng.uniform(0.36, 0.48), rng.uniform(0.16, 0.26)
    sx, sy, handle = -a - rng.uniform(0.3, 0.45), rng.uniform(-0.5, -0.25), rng.uniform(0.24, 0.36)
    outer, inner = ellipse(a - 0.05, 0, handle, 0.32), ellipse(a - 0.05, 0, 0.55 * handle, 0.19)[::-1]
    return Anatomy(
        (
            Part("handle", np.concatenate([outer, outer[:1], inner[-1:], inner])),
            Part("spout", shape((-0.8 * a, -0.05), (sx, sy), (sx + 0.14, sy), (-0.7 * a, 0.25))),
            Part("plate", ellipse(0, 0.95 * b, 0.75 * a, 0.08)),
            Part("body", ellipse(0, 0, a, b)),
            Part("stripe", quad(-0.9 * a, 0.02, 0.9 * a, 0.14)),
            Part("lid", ellipse(0, -0.88 * b, rim * 1.6, 0.1)),
            Part("knob", ellipse(0, -b - 0.09, 0.09, 0.09)),
        ),
        {
            "spout": (sx + 0.05, sy), "knob": (0.0, -b - 0.09), "handle": (a + 0.8 * handle, 0.0), "foot": (0.0, b),
        },
    )  # fmt: skip


def castle(rng: np.random.Generator) -> Anatomy:
    """Draw a castle with two towers from its front."""
    left, right, floor = rng.uniform(-0.75, -0.6), rng.uniform(0.6, 0.75), rng.uniform(0.65, 0.85)
    tl, tr, top = rng.uniform(-0.5, -0.25), rng.uniform(-0.5, -0.25), rng.uniform(-0.1, 0.1)
    w, flag = rng.uniform(0.16, 0.24), rng.uniform(0.25, 0.4)
    return Anatomy(
        (
            Part("mast", limb(left, tl - 0.25, left, tl - 0.6, 0.05)),
            Part("flag", shape((left, tl - 0.6), (left + flag, tl - 0.52), (left, tl - 0.42))),
            Part("wall", quad(left, top, right, floor)),
            Part("tower", quad(left - w, tl, left + w, floor)),
            Part("tower", quad(right - w, tr, right + w, floor)),
            Part("roof", shape((left - w - 0.06, tl), (left, tl - 0.32), (left + w + 0.06, tl))),
            Part("roof", shape((right - w - 0.06, tr), (right, tr - 0.32), (right + w + 0.06, tr))),
            Part("door", quad(-0.14, floor - 0.42, 0.14, floor)),
            Part("window", quad(left - 0.08, tl + 0.15, left + 0.08, tl + 0.33)),
            Part("window", quad(right - 0.08, tr + 0.15, right + 0.08, tr + 0.33)),
        ),
        {
            "left peak": (left, tl - 0.32), "right peak": (right, tr - 0.32), "door": (0.0, floor - 0.2),
            "left foot": (left - w, floor), "right foot": (right + w, floor), "flag tip": (left + flag, tl - 0.52),
        },
    )  # fmt: skip


def bicycle(rng: np.random.Generator) -> Anatomy:
    """Draw a bicycle from its side."""
    r, wf, wb, y = rng.uniform(0.26, 0.36), rng.uniform(-0.68, -0.55), rng.uniform(0.5, 0.65), rng.uniform(0.25, 0.35)
    hx, hy, sx, sy = (
        rng.uniform(-0.5, -0.35),
        rng.uniform(-0.6, -0.42),
        rng.uniform(0.15, 0.32),
        rng.uniform(-0.45, -0.25),
    )
    hub = 0.0
    return Anatomy(
        (
            Part("wheel", ellipse(wf, y, r, r)),
            Part("wheel", ellipse(wb, y, r, r)),
            Part("frame", limb(wf, y, hx, hy, 0.09)),
            Part("frame", limb(hx + 0.06, hy + 0.22, hub, y, 0.09)),
            Part("frame", limb(hub, y, sx, sy, 0.09)),
            Part("frame", limb(hx + 0.04, hy + 0.15, sx - 0.03, sy + 0.1, 0.09)),
            Part("frame", limb(hub, y, wb, y, 0.09)),
            Part("handle", limb(hx - 0.2, hy - 0.03, hx + 0.12, hy + 0.02, 0.12)),
            Part("seat", ellipse(sx, sy, 0.2, 0.08)),
            Part("light", ellipse(hx - 0.14, hy + 0.16, 0.08, 0.08)),
        ),
        {
            "front wheel": (wf, y), "back wheel": (wb, y), "handle": (hx - 0.1, hy), "seat": (sx, sy),
            "pedal": (hub, y),
        },
    )  # fmt: skip


def butterfly(rng: np.random.Generator) -> Anatomy:
    """Draw a butterfly with open wings."""
    up, low, span = rng.uniform(-0.75, -0.5), rng.uniform(0.45, 0.7), rng.uniform(0.7, 0.95)
    small, tip = rng.uniform(0.45, 0.65), rng.uniform(-1.0, -0.8)
    spot = rng.uniform(0.1, 0.16)
    return Anatomy(
        (
            Part("wing", shape((0, -0.1), (-0.35, up - 0.1), (-span, up + 0.05), (-span, -0.1), (-0.3, 0.12))),
            Part("wing", shape((0, -0.1), (0.35, up - 0.1), (span, up + 0.05), (span, -0.1), (0.3, 0.12))),
            Part("tail", shape((0, 0.05), (-0.3, 0.1), (-small, low - 0.2), (-0.4, low), (-0.1, 0.3))),
            Part("tail", shape((0, 0.05), (0.3, 0.1), (small, low - 0.2), (0.4, low), (0.1, 0.3))),
            Part("stripe", ellipse(-0.6 * span, 0.6 * up, spot, spot)),
            Part("stripe", ellipse(0.6 * span, 0.6 * up, spot, spot)),
            Part("antenna", limb(0, -0.35, -0.2, tip, 0.05)),
            Part("antenna", limb(0, -0.35, 0.2, tip, 0.05)),
            Part("body", ellipse(0, 0.05, 0.09, 0.42)),
            Part("head", ellipse(0, -0.38, 0.1, 0.1)),
        ),
        {
            "left wing tip": (-span, up + 0.05), "right wing tip": (span, up + 0.05), "head": (0.0, -0.38),
            "left antenna tip": (-0.2, tip), "right antenna tip": (0.2, tip), "end": (0.0, 0.47),
        },
    )  # fmt: skip


def snail(rng: np.random.Generator) -> Anatomy:
    """Draw a snail from its side."""
    r, cx, ground = rng.uniform(0.4, 0.55), rng.uniform(0.1, 0.25), rng.uniform(0.5, 0.65)
    hx, hy = rng.uniform(-0.8, -0.65), rng.uniform(-0.15, 0.1)
    ex, ey = hx - rng.uniform(0.02, 0.16), hy - rng.uniform(0.32, 0.5)
    cy = ground - 0.75 * r
    return Anatomy(
        (
            Part("antenna", limb(hx, hy, ex, ey, 0.07)),
            Part("antenna", limb(hx + 0.1, hy, ex + 0.24, ey + 0.03, 0.07)),
            Part("tail", shape((0.4, ground - 0.1), (0.98, ground + 0.1), (0.3, ground + 0.12))),
            Part(
                "body",
                shape(
                    (hx - 0.1, hy + 0.1), (hx + 0.2, hy + 0.1), (0.5, ground - 0.15), (0.55, ground + 0.13),
                    (-0.6, ground + 0.13),
                ),
            ),
            Part("head", ellipse(hx + 0.03, hy + 0.05, 0.18, 0.16)),
            Part("shell", ellipse(cx, cy, r, 0.9 * r)),
            Part("stripe", ellipse(cx, cy, 0.45 * r, 0.4 * r)),
            Part("eye", ellipse(ex, ey, 0.07, 0.07)),
            Part("mouth", ellipse(hx - 0.1, hy + 0.12, 0.07, 0.04)),
        ),
        {
            "eye": (ex, ey), "shell": (cx, cy), "top of shell": (cx, cy - 0.9 * r), "tail tip": (0.98, ground + 0.1),
            "mouth": (hx - 0.1, hy + 0.12),
        },
    )  # fmt: skip


HARDER = World(
    anatomies={
        **ANATOMIES, "bicycle": bicycle, "butterfly": butterfly, "castle": castle, "dog": dog, "plane": plane,
        "snail": snail, "teapot": teapot, "truck": truck,
    },
    frontal=FRONTAL | {"butterfly", "castle"},
    turn=45,
    tilt=0.25,
    sizes=(0.45, 0.95),
    other_sizes=(0.35, 0.65),
    textured=0.6,
)  # fmt: skip
"""Sixteen categories under larger changes of pose, with more texture and larger objects of other categories."""
