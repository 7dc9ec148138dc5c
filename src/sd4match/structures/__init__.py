"""Immutable data structures passed between components."""
