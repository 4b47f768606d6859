"""L3: fitting a model to observations."""
