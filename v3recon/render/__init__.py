"""L1: rasterisation and shading."""
