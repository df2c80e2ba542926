"""A drawn two-identity data set and the whole chain run on it."""
