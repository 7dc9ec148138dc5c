"""Correlation, matchers, losses, PCK."""
