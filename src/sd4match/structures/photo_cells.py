"""Cells of a map on its photo, without padding, and the cells around a position of the photo."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from sd4match.geometry import Grid, to_model
from sd4match.structures.resampling import neighbors


@dataclass(frozen=True)
class PhotoCells:
    """Cells of a grid of one photo, without those in the padding.

    Positions beyond the outermost cells on the photo take the nearest of these cells.

    >>> from sd4match.geometry import pad_frame
    >>> PhotoCells(Grid((pad_frame((50, 100), 96),), (4, 4), "centers")).inside.astype(int).tolist()
    [[0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]]
    """

    grid: Grid

    @cached_property
    def centers(self) -> npt.NDArray[np.float64]:
        """(h, w, 2), centers of the cells in pixels of the photo."""
        return self.grid.cell_centers(torch.zeros(1).double())[0].reshape(*self.grid.size, 2).numpy()

    @cached_property
    def inside(self) -> npt.NDArray[np.bool_]:
        """(h, w), True where the center of a cell lies on the photo, not on its padding."""
        rows, columns = self._held
        return rows[:, None] & columns

    @cached_property
    def used(self) -> npt.NDArray[np.bool_]:
        """(h, w), `inside`; for a photo narrower than a cell, the cells nearest to its middle."""
        used = np.zeros(self.grid.size, dtype=np.bool_)
        used[np.ix_(self._used(axis=1), self._used(axis=0))] = True
        return used

    def around(
        self, positions: npt.NDArray[np.float64], *, axis: int
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float64]]:
        """Return the cells before and after each position along one axis, and the weight of the latter.

        Args:
            positions: (N,), in pixels of the photo.
            axis: 0 for x, 1 for y.
        """
        points = np.zeros((1, len(positions), 2))
        points[0, :, axis] = positions
        cells = self.grid.to_cells(torch.from_numpy(points))[0, :, axis].numpy()
        used = self._used(axis=axis)
        return neighbors(cells, int(used[0]), int(used[-1]))

    def nearest(self, positions: npt.NDArray[np.float64], *, axis: int) -> npt.NDArray[np.intp]:
        """Return the nearest cell of each position, along x (axis 0) or y (axis 1)."""
        lower, _, above = self.around(positions, axis=axis)
        return np.rint(lower + above).astype(np.intp)

    def _used(self, *, axis: int) -> npt.NDArray[np.intp]:
        """Return the columns (axis 0) or rows (axis 1) of cells on the photo."""
        held = np.flatnonzero(self._held[1 - axis])
        if len(held):
            return held
        centers = self.centers[0, :, 0] if axis == 0 else self.centers[:, 0, 1]
        middle = (self.grid.frames[0].original_size[1 - axis] - 1) / 2
        return np.array([np.abs(centers - middle).argmin()])

    @cached_property
    def _held(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Rows and columns, (h,) and (w,), of cells whose centers lie on the photo."""
        frame = self.grid.frames[0]
        left, top = frame.offset
        model = to_model(torch.from_numpy(self.centers.reshape(1, -1, 2)), self.grid.frames)
        x, y = model.reshape(*self.grid.size, 2).unbind(-1)
        columns = torch.stack([x[0], torch.full_like(x[0], top - 0.5)], dim=-1)
        rows = torch.stack([torch.full_like(y[:, 0], left - 0.5), y[:, 0]], dim=-1)
        return frame.holds(rows).numpy(), frame.holds(columns).numpy()
