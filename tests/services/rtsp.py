"""Fixtures of the rtsp tests."""
