"""Notebooks as a graph of jobs, run by papermill under Snakemake, and the command ``study``."""
