"""L0: geometry on tensors; imports torch only."""
