"""L4: pieces of the training loop."""
