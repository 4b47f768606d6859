"""L4: benchmarks and their protocols."""
