"""Fixtures of the elasticsearch tests."""
