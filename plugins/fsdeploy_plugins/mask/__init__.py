"""Where the alpha of a swapped patch comes from."""
