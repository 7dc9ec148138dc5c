"""Modules of the training of `mini`: captions, autoencoder, grounding loss."""
