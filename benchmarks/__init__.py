"""How fast, against loops shaped like the reference's and against what the arithmetic allows."""
