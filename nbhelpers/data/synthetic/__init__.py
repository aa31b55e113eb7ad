"""A small data set that is drawn by code: hazelnut, carpet, zipper and their defects."""
