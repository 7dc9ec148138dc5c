"""Photos -> prompt embedding."""
