"""L2: losses as pure functions."""
