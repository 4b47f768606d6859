"""L1: morphable face models."""
