"""L2: regressors and their checkpoints."""
