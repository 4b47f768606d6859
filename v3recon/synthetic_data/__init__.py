"""Synthetic expression and pose data made from photographs."""
