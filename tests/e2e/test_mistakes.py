"""What a person can get wrong: one sentence that says what to do, and an exit code; no traceback, nothing lost."""

import socket
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from ocrstream_test_engines import make_picture

from ocrstream.picture import encode_jpeg
from tests.e2e.commands import PATIENCE_S, PROGRAM, ocrstream, running
from tests.e2e.test_embedded import ENGINES, PAIR, identities, pictures
from tests.e2e.videos import write_video


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of things that are, for the most part, not what they should be; data/ holds what was read of a clip."""
    folder = tmp_path_factory.mktemp("things")
    write_video(folder / "clip.mkv", pictures(10), fps=10)
    (folder / "text.mp4").write_text("This is no video.")
    (folder / "empty.mp4").touch()
    (folder / "folder").mkdir()
    good = encode_jpeg(make_picture([("Gate A1", (40.0, 30.0, 340.0, 80.0))]), quality=98)
    (folder / "good.jpg").write_bytes(good)
    (folder / "half.jpg").write_bytes(good[: len(good) // 2])
    cv2.imwrite(str(folder / "wide.png"), np.zeros((8, 20_000), np.uint8))
    (folder / "noise.jsonl").write_bytes(bytes(range(256)) * 20)
    (folder / "plain.toml").write_text("producer = 1")
    (folder / "typo.toml").write_text("[producer]\nfsp = 3")
    ocrstream("run", folder / "clip.mkv", "--no-serve", "--data", folder / "data", *ENGINES)
    return folder


RUN = ("run", "--no-serve", "--data", "new", *ENGINES)
STORED = ("--data", "data")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*RUN, "nowhere.mp4"), "nowhere.mp4: there is no such file; a source is a file or folder"),
        ((*RUN, "clip.mkv", "nowhere.mp4"), "nowhere.mp4: there is no such file"),
        ((*RUN, "good.jpg/clip.mkv"), "good.jpg/clip.mkv: it cannot be read: Not a directory"),
        ((*RUN, "text.mp4"), "text.mp4: it cannot be read as a video: Invalid data"),
        ((*RUN, "empty.mp4"), "empty.mp4: the file is empty"),
        ((*RUN, "folder"), "folder: the folder and its sub-folders hold no images"),
        ((*RUN, "wide.png"), "wide.png: the image is 20000x8 pixels; at most 16384 a side"),
        ((*RUN, "half.jpg"), "half.jpg: the image is damaged"),
        ((*RUN, "camera:77"), "camera:77: /dev/video77 is not there"),
        ((*RUN, "clip.mkv", "--config", "typo.toml"), "[producer]: unknown key 'fsp'; did you mean 'fps'?"),
        ((*RUN, "clip.mkv", "--config", "plain.toml"), "producer should be a section, [producer]"),
        (("run", "clip.mkv", "--data", "good.jpg"), "the data folder good.jpg cannot be made"),
        (("run", "clip.mkv", "--data", "/proc/ocrstream"), "the data folder /proc/ocrstream cannot be made"),
        (("index", "--kafka", "nobody:9092"), "which Elasticsearch? Give --elasticsearch URL"),
        (("read", "folder", *PAIR), "folder is a folder: give image files, or `ocrstream run folder` for a folder"),
        (("read", "text.mp4", *PAIR), "text.mp4: not an image (17 bytes)\n"),
        (("import", "folder", *STORED), "folder cannot be read: Is a directory"),
        (("export", "--source", "attic", *STORED), "there is no source 'attic'; there are: clip\n"),
        (("replay", "--source", "attic", *STORED), "there is no source 'attic'; there are: clip\n"),
        (
            ("export", "--since", "2030-01-01", "--until", "2029-01-01", *STORED),
            "--until 2029-01-01 does not lie behind --since 2030-01-01",
        ),
        (("search", "(gate", *STORED), "an opening parenthesis is never closed: add )"),
        (("search", "gate", "--since", "soon", *STORED), "'soon' is not a time. Write 2026"),
        (("export", "-o", "none/out.jsonl", *STORED), "none/out.jsonl cannot be written: No such file or directory"),
        (("annotate", "text.mp4", "-o", "out.mp4", *STORED), "text.mp4: it cannot be read as a video"),
        (("annotate", "demo:", "-o", "out.mp4", *STORED), "only video files can be annotated"),
        (("annotate", "clip.mkv", "-o", "none/out.mp4", *STORED), "there is no folder none"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_gets_one_sentence(
    things: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(things)
    done = ocrstream(*arguments, expect=2)
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stdout == ""


def test_a_share_that_is_none_is_told_so(things: Path) -> None:
    for text in ("lots", "7", "nan"):
        said = ocrstream("search", "x", "--min-confidence", text, "--data", things / "data", expect=2).stderr
        assert f"argument --min-confidence: {text} is not a share from 0 to 1" in said


def test_one_bad_picture_keeps_no_other_from_being_read(things: Path) -> None:
    names = [things / name for name in ("half.jpg", "good.jpg", "wide.png")]
    done = ocrstream("read", *names, *PAIR, expect=2)
    assert done.stdout == f"{things / 'good.jpg'}:\nGate A1\n"
    assert len(done.stderr.splitlines()) == 2


def test_a_port_that_is_taken(things: Path, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        run = ("run", things / "clip.mkv", *ENGINES, "--data", tmp_path)
        for command in (run, ("serve", "--data", things / "data")):
            said = ocrstream(*command, "--port", str(port), expect=2).stderr
            assert said == (
                f"ocrstream: port {port} is taken on 127.0.0.1: give another with --port, or --port 0 for any that is "
                "free\n"
            )


def test_noise_is_imported_line_by_line(things: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed.jsonl"
    exported = ocrstream("export", "--data", things / "data").stdout
    mixed.write_bytes(exported.encode() + (things / "noise.jsonl").read_bytes())
    done = ocrstream("import", mixed, "--data", tmp_path / "data", expect=1)
    assert "not UTF-8" in done.stderr
    assert "10 frames with 15 regions and 0 appearances stored" in done.stderr
    assert ocrstream("export", "--data", tmp_path / "data").stdout == exported


def test_a_name_of_another_encoding_is_read_and_found(things: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hall"
    folder.mkdir()
    (folder / "caf\udce9.jpg").write_bytes((things / "good.jpg").read_bytes())
    ocrstream("run", folder, "--no-serve", "--data", tmp_path / "data", *ENGINES)
    assert "Gate A1" in ocrstream("search", "A1", "--data", tmp_path / "data").stdout


def test_damage_in_the_middle_of_a_video_costs_what_is_damaged(tmp_path: Path) -> None:
    clip, data = tmp_path / "clip.mkv", tmp_path / "data"
    write_video(clip, pictures(100), fps=25)
    content = bytearray(clip.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 2000] = bytes(2000)
    clip.write_bytes(content)
    said = ocrstream("run", clip, "--no-serve", "--data", data, *ENGINES).stderr
    assert "damaged frames were skipped" in said
    texts = {text for _, _, text in identities(data)}
    assert {"number 000", "number 099", "Gate B12"} <= texts
    assert len(texts) > 50


def test_two_runs_over_one_folder_at_once_lose_and_double_nothing(things: Path, tmp_path: Path) -> None:
    clip, data = tmp_path / "clip.mkv", tmp_path / "data"
    write_video(clip, pictures(100), fps=25)
    command = ("--no-serve", "--data", data, *ENGINES)
    with running("run", f"a={clip}", *command) as first, running("run", f"b={clip}", *command) as second:
        for run in (first, second):
            assert run.process.wait(PATIENCE_S) == 0, run.output
    counts = sorted(text for _, _, text in identities(data).elements())
    assert counts == sorted(2 * ([f"number {number:03d}" for number in range(100)] + ["Gate B12"] * 50))


def test_a_source_that_fails_on_the_way_leaves_the_others_alone(things: Path, tmp_path: Path) -> None:
    """A web server that has no such camera: known only when it is asked, and then the clip is being read."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        running(
            "run",
            things / "clip.mkv",
            f"gate=http://u:secret@127.0.0.1:{server.getsockname()[1]}/x.mjpg",
            "--no-serve",
            "--data",
            tmp_path / "data",
            *ENGINES,
        ) as run,
    ):
        server.settimeout(60)
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        assert run.process.wait(PATIENCE_S) == 2, run.output
        assert "secret" not in run.output
        assert "Traceback" not in run.output
    assert len(identities(tmp_path / "data")) == 15


def test_a_full_disk_behind_standard_output_is_told_of(things: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PROGRAM, "export", "--data", things / "data"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        "ocrstream: standard output cannot be written to its end: No space left on device; make room, or give another "
        "place with -o"
    ]


def test_a_run_that_read_nothing_does_not_invite_to_search(things: Path, tmp_path: Path) -> None:
    run = ("run", things / "clip.mkv", "--no-serve", "--data", tmp_path / "data", *ENGINES)
    assert "Search it: ocrstream search WORD" in ocrstream(*run).stderr
    assert "Search it" not in ocrstream(*run).stderr
