"""Thresholds: rules, calibration, comparison, conformal promises, zones."""
