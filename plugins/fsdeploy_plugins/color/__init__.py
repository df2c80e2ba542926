"""Colour corrections applied to a swapped patch."""
