"""L1: files in and out."""
