"""Procedural data set: drawings with exactly known keypoints, of any number, without a download."""
