"""The training loop: recipe, objective, state of a run."""
