"""The procedural data set: no download, no end, every point known."""
