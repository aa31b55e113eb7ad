"""A study in, rows of the tidy table out: one file for each question, named as the notebook that
asks it.
"""
