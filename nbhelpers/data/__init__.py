"""Images in: layout, reading, splits, augmentation, the domain shift, the synthetic data set."""
