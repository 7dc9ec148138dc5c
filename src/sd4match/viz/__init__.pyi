from .curves import draw_calibration as draw_calibration
from .curves import plot_training as plot_training
from .dense import draw_dense as draw_dense
from .imagine import draw_grid as draw_grid
from .imagine import load_painter as load_painter
from .imagine import paint as paint
from .matches import draw_matches as draw_matches
from .matches import stack as stack
