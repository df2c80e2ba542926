"""Typed options: one source for the command line, the TOML file, the docs and the state JSON."""
