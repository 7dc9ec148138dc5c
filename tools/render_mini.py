"""Render the photos and captions that `mini` is trained on.

    python tools/render_mini.py --output runs/photos --photos 300000 --workers 12

Photos of a folder that holds some already are completed. `train_mini.py` can begin while this runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from mini.photos import render_files


def main() -> None:
    """Render what the command line describes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the photos")
    parser.add_argument("--photos", type=int, default=100_000, help="number of photos, a multiple of 1,000")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--harder", type=float, default=0.5, help="fraction of photos of the harder world")
    parser.add_argument("--distractors", type=float, default=0.5, help="fraction of photos with a second object")
    parser.add_argument("--absent-words", type=float, default=0.5, help="fraction of captions with parts of others")
    options = parser.parse_args()
    render_files(
        options.output, options.photos, workers=options.workers, harder=options.harder,
        distractors=options.distractors, absent=options.absent_words,
    )  # fmt: skip


if __name__ == "__main__":
    main()
