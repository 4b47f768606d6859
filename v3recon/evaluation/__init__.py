"""Benchmarks and their protocols."""
