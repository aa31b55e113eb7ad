"""Findings to figures and tables."""
