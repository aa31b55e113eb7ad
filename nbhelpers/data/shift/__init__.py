"""The domain shift: parameters drawn from a seed, applied to an image and its mask, and written as
shifted twins.
"""
