"""Measured shortcuts of the processor, each with a plain twin that gives the same result."""
