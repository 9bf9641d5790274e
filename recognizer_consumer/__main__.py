"""3/4  Runs the recogniser stage over Kafka: ``python -m recognizer_consumer``, the same as ``ocrstream recognize``."""

from __future__ import annotations

import argparse
import sys

from ocrstream.config import Configuration, KafkaSettings, RecognizerSettings, add_flags
from ocrstream.process import Command, run_as_program, run_stage
from recognizer_consumer.stage import build


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's flags."""
    add_flags(parser, KafkaSettings, RecognizerSettings)


def run(arguments: argparse.Namespace) -> int:
    """Run until stopped; returns the exit code."""
    configuration = Configuration(arguments)
    settings = configuration.section(RecognizerSettings)
    return run_stage(configuration, lambda transport, metrics: build(settings, transport, metrics))


COMMAND = Command("recognize", "Read the crops in Kafka and send their texts on.", add_arguments, run)

if __name__ == "__main__":
    sys.exit(run_as_program(COMMAND))
