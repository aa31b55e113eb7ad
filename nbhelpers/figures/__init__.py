"""Figures take rows of results or predictions and give a Figure; none of them shows it."""
