"""The domain shift: parameters drawn from a seed, applied to image and mask alike, written as
shifted twins.
"""
