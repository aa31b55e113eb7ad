"""Rows and figures on one page."""
