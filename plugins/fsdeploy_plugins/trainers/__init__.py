"""Trainers: how a batch becomes an optimizer step."""
