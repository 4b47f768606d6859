"""Regressors and their checkpoints."""
