"""What every swap model is: base class, registry, state, reading and writing, inference."""
