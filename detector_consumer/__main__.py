"""2/4  Runs the detector stage over Kafka: ``python -m detector_consumer``, the same as ``ocrstream detect``."""

from __future__ import annotations

import argparse
import sys

from detector_consumer.stage import build
from ocrstream.config import Configuration, DetectorSettings, KafkaSettings, add_flags
from ocrstream.process import Command, run_as_program, run_stage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's flags."""
    add_flags(parser, KafkaSettings, DetectorSettings)


def run(arguments: argparse.Namespace) -> int:
    """Run until stopped; returns the exit code."""
    configuration = Configuration(arguments)
    settings = configuration.section(DetectorSettings)
    return run_stage(configuration, lambda transport, metrics: build(settings, transport, metrics))


COMMAND = Command("detect", "Find the text lines of the frames in Kafka and send their crops on.", add_arguments, run)

if __name__ == "__main__":
    sys.exit(run_as_program(COMMAND))
