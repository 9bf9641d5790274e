"""Fixtures for all tests: the real servers, each started once per session when a test first asks for it."""

pytest_plugins = [
    "tests.services.kafka",
    "tests.services.elasticsearch",
    "tests.services.rtsp",
    "tests.services.browser",
]
