"""L3: photographs and targets for training."""
