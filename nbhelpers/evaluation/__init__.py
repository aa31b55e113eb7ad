"""Scores to findings: metrics, thresholds, statistics, scenarios."""
