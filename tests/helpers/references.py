"""Slow, literal versions of the formulas: loops over everything, one number at a time, in float64."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F


def lerp_feature(feature: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """(C, h, w) at (x, y), bilinear, clamped."""
    _, h, w = feature.shape
    x, y = min(max(x, 0.0), w - 1.0), min(max(y, 0.0), h - 1.0)
    x0, y0 = math.floor(x), math.floor(y)
    x1, y1 = min(x0 + 1, w - 1), min(y0 + 1, h - 1)
    top = (1 - (x - x0)) * feature[:, y0, x0] + (x - x0) * feature[:, y0, x1]
    bottom = (1 - (x - x0)) * feature[:, y1, x0] + (x - x0) * feature[:, y1, x1]
    return (1 - (y - y0)) * top + (y - y0) * bottom


def correlate(source, target, queries, normalize=True):
    b, n = queries.shape[:2]
    out = torch.zeros(b, n, *target.shape[2:], dtype=torch.float64)
    for i in range(b):
        for j in range(n):
            q = lerp_feature(source[i].double(), float(queries[i, j, 0]), float(queries[i, j, 1]))
            if normalize:
                q = q / (float(q.norm()) or 1.0)
            for y in range(target.shape[2]):
                for x in range(target.shape[3]):
                    t = target[i, :, y, x].double()
                    if normalize:
                        t = t / (float(t.norm()) or 1.0)
                    out[i, j, y, x] = float(q @ t)
    return out


def arg_max(plane):
    best, where = -math.inf, (0, 0)
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            if float(plane[y, x]) > best:
                best, where = float(plane[y, x]), (x, y)
    return where


def soft_arg_max(plane, temperature):
    values = [(float(plane[y, x]) / temperature, x, y) for y in range(plane.shape[0]) for x in range(plane.shape[1])]
    top = max(v for v, _, _ in values)
    total = sum(math.exp(v - top) for v, _, _ in values)
    return (
        sum(math.exp(v - top) * x for v, x, _ in values) / total,
        sum(math.exp(v - top) * y for v, _, y in values) / total,
    )


def kernel_soft_arg_max(plane, temperature, sigma):
    px, py = arg_max(plane)
    damped = plane.double().clone()
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            damped[y, x] *= math.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma**2))
    return soft_arg_max(damped, temperature)


def window_soft_arg_max(plane, temperature, window):
    px, py = arg_max(plane)
    cut = plane.double().clone()
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            if abs(x - px) > window // 2 or abs(y - py) > window // 2:
                cut[y, x] = 0.0
    return soft_arg_max(cut, temperature)


def bilinear_arg_max(source, target, x, y):
    """One query; (C, h, w) maps."""
    _, h, w = source.shape
    x, y = min(max(x, 0.0), w - 1.0), min(max(y, 0.0), h - 1.0)
    x0, y0 = math.floor(x), math.floor(y)
    found = [0.0, 0.0]
    for cx, wx in ((x0, 1 - (x - x0)), (min(x0 + 1, w - 1), x - x0)):
        for cy, wy in ((y0, 1 - (y - y0)), (min(y0 + 1, h - 1), y - y0)):
            plane = correlate(source[None], target[None], torch.tensor([[[float(cx), float(cy)]]]))[0, 0]
            mx, my = arg_max(plane.float())
            found[0] += wx * wy * mx
            found[1] += wx * wy * my
    return tuple(found)


def gaussian_cross_entropy(correlation, targets, visible, temperature, kernel=7):
    """The reference's own form: probability map, grid_sample with border padding, log."""
    b, n, h, w = correlation.shape
    s = (kernel - 1) / 4
    per_pair = []
    for i in range(b):
        seen = [j for j in range(n) if visible[i, j]]
        if not seen:
            continue
        total = 0.0
        for j in seen:
            p = torch.softmax(correlation[i, j].double().flatten() / temperature, 0).reshape(1, 1, h, w)
            for dy in range(-(kernel // 2), kernel // 2 + 1):
                for dx in range(-(kernel // 2), kernel // 2 + 1):
                    x, y = float(targets[i, j, 0]) + dx, float(targets[i, j, 1]) + dy
                    if not (0 < x < w - 1 and 0 < y < h - 1):
                        continue
                    place = torch.tensor([[[[2 * x / (w - 1) - 1, 2 * y / (h - 1) - 1]]]], dtype=torch.float64)
                    value = float(F.grid_sample(p, place, padding_mode="border", align_corners=True))
                    weight = math.exp(-(dx * dx + dy * dy) / (2 * s * s)) / (2 * math.pi * s * s)
                    total -= weight * math.log(value)
        per_pair.append(total / len(seen))
    return sum(per_pair) / len(per_pair) if per_pair else 0.0


def pck(predicted, target, visible, length, alphas, inclusive=True):
    out = []
    for i in range(predicted.shape[0]):
        row = []
        for alpha in alphas:
            hits = count = 0
            for j in range(predicted.shape[1]):
                if not visible[i, j]:
                    continue
                count += 1
                d = math.dist(predicted[i, j].tolist(), target[i, j].tolist())
                limit = alpha * float(length[i])
                hits += d <= limit if inclusive else d < limit
            row.append(hits / count if count else math.nan)
        out.append(row)
    return out


# How the benchmarks count, end to end, for one pair: features of two photos and their points in; places in the frame in
# which errors are measured, and correctness at each alpha, out.


def _nearest(source, target, qx, qy):
    """The query's plane of cosines."""
    return correlate(source[None], target[None], torch.tensor([[[qx, qy]]], dtype=torch.float64))[0, 0]


def _judge(places, truth, length, alphas, inclusive):
    rows = []
    for (px, py), (tx, ty) in zip(places, truth, strict=True):
        distance = math.sqrt((px - tx) ** 2 + (py - ty) ** 2)
        rows.append([distance <= a * length if inclusive else distance < a * length for a in alphas])
    return rows


def count_sd4match(source, target, sizes, points, box, alphas, image=768, side=768):
    """Squashed: query bilinear with aligned corners, kernel soft arg-max, truth clamped, squashed box.

    `image` is the side of the model's image, `side` that of the square in which errors are measured: both 768 as
    published.
    """
    (sh, sw), (th, tw) = sizes
    h, w = target.shape[1:]
    places, truth = [], []
    for (x, y), (u, v) in zip(*points, strict=True):
        qx = x * image / sw * (source.shape[2] - 1) / (image - 1)
        qy = y * image / sh * (source.shape[1] - 1) / (image - 1)
        cx, cy = kernel_soft_arg_max(_nearest(source, target, qx, qy), 0.04, 7.0)
        places.append(tuple(c * (image - 1) / (n - 1) * side / image for c, n in ((cx, w), (cy, h))))
        truth.append((min(max(u * side / tw, 0.0), side - 1.0), min(max(v * side / th, 0.0), side - 1.0)))
    length = max((box[2] - box[0]) * side / tw, (box[3] - box[1]) * side / th)
    return places, _judge(places, truth, length, alphas, True)


def upsampled_cosines(source, target, sizes, point):
    """(H, W): cosines of the feature at a point's whole pixel with features really upsampled to the target photo."""
    big = [
        F.interpolate(maps[None].double(), size=size, mode="bilinear", align_corners=False)[0]
        for maps, size in zip((source, target), sizes, strict=True)
    ]
    query = big[0][:, int(point[1]), int(point[0])]
    return torch.einsum("c,chw->hw", query / query.norm(), big[1] / big[1].norm(dim=0))


def count_dift(source, target, sizes, points, box, alphas):
    """Features really upsampled to the photos' sizes; whole pixels looked up; arg-max over pixels."""
    places = []
    for point in points[0]:
        best, where = -math.inf, (0, 0)
        cosines = upsampled_cosines(source, target, sizes, point)
        for row in range(sizes[1][0]):
            value, column = cosines[row].max(0)
            if float(value) > best + 1e-12:
                best, where = float(value), (int(column), row)
        places.append(where)
    length = max(box[2] - box[0], box[3] - box[1])
    return places, _judge(places, points[1], length, alphas, True)


def _padded(size, side):
    """Scale and offset of SD-DINO's padding."""
    height, width = size
    scale = side / max(height, width)
    across = down = 0
    if height < width:
        down = int((side - round(side * height / width)) / 2)
    elif width < height:
        across = int((side - round(side * width / height)) / 2)
    return scale, across, down


def count_padded(source, target, sizes, points, box, alphas, *, middle, window=None, side=840):
    """Padded to 840: source points floored to their cell, arg-max or window soft arg-max, cell * stride + middle."""
    (scale, ax, ay), (tscale, tx, ty) = (_padded(size, side) for size in sizes)
    cells = target.shape[2]
    stride = side / cells
    places, truth = [], []
    for (x, y), (u, v) in zip(*points, strict=True):
        qx, qy = math.floor((x * scale + ax) / stride), math.floor((y * scale + ay) / stride)
        plane = _nearest(source, target, float(qx), float(qy))
        cx, cy = arg_max(plane) if window is None else window_soft_arg_max(plane, 0.02, window)
        places.append((cx * stride + middle(stride), cy * stride + middle(stride)))
        truth.append((u * tscale + tx, v * tscale + ty))
    length = max(box[2] - box[0], box[3] - box[1]) * tscale
    return places, _judge(places, truth, length, alphas, False)


def hog(pixels, config):
    """Histograms of oriented gradients of one image, (3, H, W) in [0, 1]; (channels, h, w)."""
    side, stride, cell = pixels.shape[1], config.stride, config.cell
    bins, size = 2 * config.orientations, side // stride
    root = [[[math.sqrt(float(pixels[c, y, x])) for x in range(side)] for y in range(side)] for c in range(3)]

    def at(c, y, x):
        return root[c][min(max(y, 0), side - 1)][min(max(x, 0), side - 1)]

    signed = torch.zeros(bins, size, size, dtype=torch.float64)
    for y in range(side):
        for x in range(side):
            gradients = [
                ((at(c, y, x + 1) - at(c, y, x - 1)) / 2, (at(c, y + 1, x) - at(c, y - 1, x)) / 2) for c in range(3)
            ]
            across, down = max(gradients, key=lambda gradient: math.hypot(*gradient))
            length, position = math.hypot(across, down), math.atan2(down, across) % (2 * math.pi) / (2 * math.pi) * bins
            low = math.floor(position)
            for i in range(size):
                for j in range(size):
                    share = 1.0
                    for pixel, position_of_cell in ((y, i), (x, j)):
                        center = position_of_cell * stride + (stride - 1) / 2
                        share *= max(0.0, 1 - abs(pixel - center) / cell) / cell
                    signed[low % bins, i, j] += share * length * (1 - (position - low))
                    signed[(low + 1) % bins, i, j] += share * length * (position - low)
    unsigned = signed[: bins // 2] + signed[bins // 2 :]
    cells = torch.cat([signed, unsigned])

    def around(i, j, span):
        for down in range(-(span // 2), span // 2 + 1):
            for across in range(-(span // 2), span // 2 + 1):
                row, column = i + down * config.overlap, j + across * config.overlap
                yield down, across, (row, column) if 0 <= row < size and 0 <= column < size else None

    normalized = torch.zeros_like(cells)
    for i in range(size):
        for j in range(size):
            inside = [place for _, _, place in around(i, j, config.block) if place]
            energy = sum(float(unsigned[k, row, column]) ** 2 for row, column in inside for k in range(bins // 2))
            for k in range(len(cells)):
                normalized[k, i, j] = min(float(cells[k, i, j]) / math.sqrt(energy + config.floor**2), config.clip)
    features = torch.zeros(len(cells), config.window**2, size, size, dtype=torch.float64)
    for i in range(size):
        for j in range(size):
            for number, (down, across, place) in enumerate(around(i, j, config.window)):
                if place:
                    weight = math.exp(-(down**2 + across**2) / (2 * config.sigma**2))
                    features[:, number, i, j] = weight * normalized[:, place[0], place[1]]
    features = features.flatten(0, 1)
    for channel in features:
        channel -= channel.mean()
    return features
