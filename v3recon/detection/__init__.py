"""L2: finding and aligning faces."""
