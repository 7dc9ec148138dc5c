"""Atomic files, the disk cache, and feature files."""
