"""Fitting a model to observations."""
