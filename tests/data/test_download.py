"""Checked downloads, against a local server that can break off, ignore ranges, or lie."""

import contextlib
import hashlib
import http.server
import os
import signal
import socketserver
import subprocess
import sys
import threading
import time

import pytest
from tests.untyped import untyped

from cliffs.data import CACHE_DIR_VARIABLE, DATA_DIR_VARIABLE, DataError, Source, download, locate

CONTENT = bytes(range(256)) * 1000
SUM = hashlib.sha256(CONTENT).hexdigest()


@contextlib.contextmanager
def server(*, cut_first_at=None, stall_first_at=None, ranges=True, content=CONTENT):
    """A file server; the first answer may break off or stall. Yields the address and the list of ranges asked for."""
    asked, go_on = [], threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            asked.append(wanted)
            start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted and ranges else 0
            body = content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                if len(asked) == 1 and stall_first_at:
                    self.wfile.write(body[:stall_first_at])
                    go_on.wait(60)
                    return
                self.wfile.write(body[:cut_first_at] if len(asked) == 1 and cut_first_at else body)

        def log_message(self, format, *args): ...

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.server_port}/file.bin", asked
    finally:
        go_on.set()
        listener.shutdown()
        listener.server_close()
        thread.join()


def test_integration_download_checks_the_sum_and_renames(tmp_path):
    with server() as (url, asked):
        path = download(Source("a/file.bin", SUM, len(CONTENT), url), tmp_path / "a" / "file.bin")
        assert path.read_bytes() == CONTENT
        assert [p.name for p in path.parent.iterdir()] == ["file.bin"]
        download(Source("a/file.bin", SUM, len(CONTENT), url), path)
        assert asked == [None]  # the second call found the file


@pytest.mark.parametrize("ranges", [True, False])
def test_integration_a_broken_download_goes_on_where_it_stopped(tmp_path, ranges):
    target = tmp_path / "file.bin"
    with server(cut_first_at=100_000, ranges=ranges) as (url, asked):
        source = Source("file.bin", SUM, len(CONTENT), url)
        with pytest.raises(DataError):
            download(source, target)
        assert not target.exists()
        assert 0 < (tmp_path / "file.bin.part").stat().st_size < len(CONTENT)
        assert download(source, target).read_bytes() == CONTENT
        assert asked[1].startswith("bytes=")


def test_integration_a_killed_process_leaves_a_part_that_is_taken_up(tmp_path):
    part, at = tmp_path / "file.bin.part", 3 * 65536
    script = (
        "import pathlib, sys; from cliffs.data import Source, download\n"
        "download(Source('file.bin', sys.argv[1], int(sys.argv[2]), sys.argv[3]), pathlib.Path(sys.argv[4]))"
    )
    with server(stall_first_at=at) as (url, asked):
        target = tmp_path / "file.bin"
        process = subprocess.Popen([sys.executable, "-c", script, SUM, str(len(CONTENT)), url, str(target)])
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        kept = part.stat().st_size
        assert 0 < kept < len(CONTENT)
        assert not target.exists()
        assert download(Source("file.bin", SUM, len(CONTENT), url), target).read_bytes() == CONTENT
        assert asked == [None, f"bytes={kept}-"]


def test_integration_two_that_want_the_same_file_fetch_it_once(tmp_path):
    pytest.importorskip("fcntl")
    with server() as (url, asked):
        source, target = Source("file.bin", SUM, len(CONTENT), url), tmp_path / "file.bin"
        threads = [threading.Thread(target=download, args=(source, target)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert target.read_bytes() == CONTENT
        assert asked == [None]


class Garbage(socketserver.StreamRequestHandler):
    """Answers with whatever bytes the server was given."""

    def handle(self):
        self.rfile.readline()
        self.wfile.write(untyped(self.server).answer)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    "answer",
    [
        b"what is this\r\n\r\n",  # BadStatusLine
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4000\r\nshort",  # IncompleteRead
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort",
        b"HTTP/1.1 503 Busy\r\n\r\n",
    ],
)
def test_wrong_an_answer_that_is_not_http_or_breaks_off_is_one_clear_error(tmp_path, answer):
    with socketserver.TCPServer(("127.0.0.1", 0), Garbage) as listener:
        untyped(listener).answer = answer
        threading.Thread(target=listener.serve_forever).start()
        try:
            url = f"http://127.0.0.1:{listener.server_address[1]}/file.bin"
            with pytest.raises(DataError, match=r"cannot download|stopped at"):
                download(Source("file.bin", SUM, len(CONTENT), url), tmp_path / "file.bin", timeout=5)
        finally:
            listener.shutdown()


@pytest.mark.wrong_arguments
def test_wrong_wrong_sum_removes_the_part_and_says_what_to_do(tmp_path):
    message = rf"sha256 .*expected {SUM}.*{DATA_DIR_VARIABLE}"
    with server(content=CONTENT[::-1]) as (url, _), pytest.raises(DataError, match=message):
        download(Source("file.bin", SUM, len(CONTENT), url), tmp_path / "file.bin")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.wrong_arguments
def test_wrong_unreachable_address_says_what_to_do(tmp_path):
    with server() as (url, _):
        pass
    with pytest.raises(DataError, match=rf"cannot download .*{DATA_DIR_VARIABLE}"):
        download(Source("file.bin", SUM, len(CONTENT), url), tmp_path / "file.bin", timeout=2)


def test_property_locate_prefers_argument_then_variable_then_cache(tmp_path, monkeypatch):
    monkeypatch.delenv(DATA_DIR_VARIABLE, raising=False)
    monkeypatch.setenv(CACHE_DIR_VARIABLE, str(tmp_path / "cache"))
    for name in ("argument", "variable"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file.bin").write_bytes(CONTENT)
    with server() as (url, asked):
        source = Source("file.bin", SUM, len(CONTENT), url)
        assert locate(source) == tmp_path / "cache" / "file.bin"
        monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path / "variable"))
        assert locate(source).parent.name == "variable"
        assert locate(source, tmp_path / "argument").parent.name == "argument"
        assert len(asked) == 1


@pytest.mark.wrong_arguments
def test_wrong_missing_and_damaged_files_in_a_named_folder(tmp_path):
    source = Source("sub/file.bin", SUM, len(CONTENT), "http://example.invalid/file.bin")
    with pytest.raises(DataError, match=r"does not exist. Put sub/file.bin there"):
        locate(source, tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(DataError, match=r"not the expected file.*Replace it"):
        locate(source, tmp_path)
