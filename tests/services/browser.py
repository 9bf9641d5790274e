"""Fixtures of the browser tests."""
