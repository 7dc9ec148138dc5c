"""From matches to a report."""
