"""Learning a prompt: batches, gradients, steps, checkpoints, what one sees of it."""
