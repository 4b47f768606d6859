"""Rasterisation and shading."""
