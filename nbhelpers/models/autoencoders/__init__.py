"""Autoencoders: networks, losses, training, and the heads that compare an image with its
reconstruction.
"""
