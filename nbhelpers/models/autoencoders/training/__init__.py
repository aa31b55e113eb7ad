"""Training of autoencoders by Lightning: exact resume, held-out images, corruption, trackers; see
``trainer.train``.
"""
