"""Rows or predictions in, a Figure out."""
