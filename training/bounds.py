"""What a training's settings may be."""

from __future__ import annotations

from ocrstream.errors import ConfigError


def check(settings: object, **bounds: tuple[float, float]) -> None:
    """See to it that settings lie in their bounds.

    Args:
        settings: whatever has them as attributes; None is what nobody has set.
        bounds: of each setting to be checked, the least and the largest that it may be.

    Raises:
        ConfigError: one does not, or is no number.
    """
    for name, (least, largest) in bounds.items():
        value = getattr(settings, name)
        if value is not None and not least <= value <= largest:
            raise ConfigError(f"{name.replace('_', ' ')} is {value:g}, and has to be from {least:g} to {largest:g}")
