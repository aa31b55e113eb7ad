"""Autoencoders: networks, losses, training, and heads that compare images and reconstructions."""
