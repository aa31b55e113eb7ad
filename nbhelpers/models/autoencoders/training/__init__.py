"""Training of autoencoders by Lightning: exact resume, held-out images, corruption, trackers.

Start with ``trainer.train``.
"""
