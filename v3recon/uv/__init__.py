"""L2: work in texture space."""
