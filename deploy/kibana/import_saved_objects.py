"""Bring the data views, the search and the dashboard beside this file into Kibana.

``docker compose up`` runs it once Kibana is healthy; by hand: ``KIBANA_URL=… python3 import_saved_objects.py``. What is
in Kibana already stays as it is, since somebody may have changed it there; ``--overwrite`` puts this version back.

=================== =====================================================================================
variable            meaning
=================== =====================================================================================
``KIBANA_URL``      Kibana's address, http://localhost:5601 where not set
``KIBANA_USERNAME`` user for basic authentication, where Kibana asks for one
``KIBANA_PASSWORD`` the password
``SEARCH_URL``      where a person's browser finds the search page, whose pictures Kibana shows
``SEARCH_PORT``     its port on localhost, where ``SEARCH_URL`` is not set; else 8077
=================== =====================================================================================

Only the standard library, so that it runs anywhere.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
DEFAULT_SEARCH_URL = "http://localhost:8077"
"""What the files in this folder say; it is replaced by the real address."""

TIMEOUT_S = 60.0


class ImportFailedError(Exception):
    """Kibana did not take the objects; the message says why."""


def main(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Import every file; returns the exit code."""
    overwrite = arguments == ["--overwrite"]
    if arguments and not overwrite:
        sys.stderr.write("usage: import_saved_objects.py [--overwrite]\n")
        return 2
    try:
        for file in sorted(FOLDER.glob("*.ndjson")):
            content = for_deployment(file.read_text(encoding="utf-8"), environment)
            answer = post(file.name, content, environment, overwrite=overwrite)
            sys.stdout.write(f"{file.name}: {outcome(answer)}\n")
    except ImportFailedError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def for_deployment(content: str, environment: Mapping[str, str]) -> str:
    """The objects with the search page's address as a browser of this deployment finds it."""
    url = environment.get("SEARCH_URL") or f"http://localhost:{environment.get('SEARCH_PORT') or 8077}"
    return content.replace(DEFAULT_SEARCH_URL, url.rstrip("/"))


def post(name: str, content: str, environment: Mapping[str, str], *, overwrite: bool) -> dict[str, Any]:
    """Send one file to Kibana and return its answer.

    Raises:
        ImportFailedError: Kibana is away, or refuses.
    """
    url = (environment.get("KIBANA_URL") or "http://localhost:5601").rstrip("/")
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
    body = f"{head}Content-Type: application/ndjson\r\n\r\n{content}\r\n--{boundary}--\r\n".encode()
    headers = {"kbn-xsrf": "ocrstream", "Content-Type": f"multipart/form-data; boundary={boundary}"}
    if user := environment.get("KIBANA_USERNAME"):
        credentials = f"{user}:{environment.get('KIBANA_PASSWORD', '')}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(credentials).decode()}"
    address = f"{url}/api/saved_objects/_import?overwrite={str(overwrite).lower()}"
    try:
        request = urllib.request.Request(address, body, headers)  # noqa: S310 the deployment's own address
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
            answer: dict[str, Any] = json.load(response)
            return answer
    except urllib.error.HTTPError as error:
        with error:
            reason = error.read().decode(errors="replace")
        raise ImportFailedError(f"Kibana at {url} refuses {name} ({error.code}): {reason:.500}") from error
    except (OSError, ValueError) as error:
        raise ImportFailedError(f"Kibana at {url} does not answer: {error}. Is KIBANA_URL right?") from error


def outcome(answer: dict[str, Any]) -> str:
    """What became of a file's objects, in words.

    Raises:
        ImportFailedError: some could not be imported for another reason than being there already.
    """
    errors = answer.get("errors", [])
    broken = [error for error in errors if error["error"]["type"] not in ("conflict", "ambiguous_conflict")]
    if broken:
        raise ImportFailedError(f"Kibana could not import: {json.dumps(broken)}")
    kept = f", {len(errors)} were there and stay as they are" if errors else ""
    return f"{answer['successCount']} objects imported{kept}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
