"""Seven networks that reconstruct images, one file each; ``registry`` builds them by name."""
