"""Geometry on tensors; imports torch only."""
