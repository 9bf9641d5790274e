"""Do the imported originals compute what the original programs did? ``python -m training.parity DIR``.

A folder of the originals' own outputs is looked at as it is: each engine checks what it finds there, value by value.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ocrstream.errors import SourceError, UserError


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison.

    Attributes:
        name: what was compared.
        difference: the largest difference.
        tolerance: what it may be.
    """

    name: str
    difference: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether it is within its tolerance; not so where it is no number."""
        return self.difference <= self.tolerance


Checks = Callable[[Path], Iterator[Check]]

ENGINES: dict[str, str] = {"ctpn": "training.parity_ctpn", "crnn": "training.parity_crnn"}
"""Each engine's module, whose function ``checks`` takes the engine's own folder in DIR."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m training.parity", description="Compare with the originals' outputs."
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="holds a folder for each engine")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING)
    failed = count = 0
    try:
        for name, module in ENGINES.items():
            if (options.folder / name).is_dir():
                checks: Checks = importlib.import_module(module).checks
                for check in checks(options.folder / name):
                    count += 1
                    failed += not check.holds
                    mark = "ok  " if check.holds else "FAIL"
                    print(
                        f"{mark} {name} {check.name}: {check.difference:.3g} (at most {check.tolerance:.3g})",
                        flush=True,
                    )
        if not count:
            raise SourceError(f"nothing to compare in {options.folder}: it holds neither of {', '.join(ENGINES)}")
    except UserError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(f"{count - failed} of {count} hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
