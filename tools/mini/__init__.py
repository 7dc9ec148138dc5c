"""The parts of mini's training: words, autoencoder, grounding."""
