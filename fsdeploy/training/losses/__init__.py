"""The loss functions, one family per file."""
