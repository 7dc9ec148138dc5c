"""Atomic files, the disk cache, and files of features."""
