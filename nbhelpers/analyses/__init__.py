"""A study in, rows of the tidy table out: one file per question, named as the notebook asks it."""
