"""2/4  Runs the detector stage over Kafka: ``python -m detector_consumer``, the same as ``ocrstream detect``."""

from __future__ import annotations

import sys

from detector_consumer.stage import prepare
from ocrstream.config import DetectorSettings
from ocrstream.process import run_as_program, stage_command

COMMAND = stage_command(
    "detect", "Find the text lines of the frames in Kafka and send their crops on.", DetectorSettings, prepare
)

if __name__ == "__main__":
    sys.exit(run_as_program(COMMAND))
