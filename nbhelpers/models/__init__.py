"""Detectors: backbones, coreset, PatchCore, and the protocol that all of them keep."""
