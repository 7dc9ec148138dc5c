"""Learning a prompt."""
