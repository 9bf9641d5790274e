"""3/4  Runs the recogniser stage over Kafka: ``python -m recognizer_consumer``, the same as ``ocrstream recognize``."""

from __future__ import annotations

import sys

from ocrstream.config import RecognizerSettings
from ocrstream.process import run_as_program, stage_command
from recognizer_consumer.stage import prepare

COMMAND = stage_command("recognize", "Read the crops in Kafka and send their texts on.", RecognizerSettings, prepare)

if __name__ == "__main__":
    sys.exit(run_as_program(COMMAND))
