"""The engine ``crnn``."""
