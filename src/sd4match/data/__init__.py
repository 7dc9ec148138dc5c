"""Pairs of photos with key points."""
