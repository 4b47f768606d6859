"""Morphable face models."""
