"""Fixtures of the kafka tests."""
