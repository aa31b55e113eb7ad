"""A small data set drawn by code: hazelnut, carpet, zipper and their defects."""
