"""Blocks, initialisers and normalisations that architectures are built from."""
