"""Protocol buffers of criu's RPC, by their bytes."""

from __future__ import annotations

import socket
import threading

import pytest

from berth.errors import Failed, Unsupported
from berth.runtime import criu


def test_numbers_have_seven_bits_a_byte():
    assert criu.varint(0) == b"\x00"
    assert criu.varint(300) == b"\xac\x02"
    assert criu.varint(-1) == b"\xff" * 9 + b"\x01"


def test_a_request_has_fields_texts_and_messages_within():
    data = criu.message(
        {"type": criu.DUMP, "opts": {"images_dir_fd": 5, "root": "/r", "shell_job": True}},
        criu._REQUEST,
    )
    assert data == b"\x08\x01\x12\x08\x08\x05\x6a\x02/r\x38\x01"


def test_lists_are_repeated_fields():
    found = criu.message({"external": ["a", "b"], "cg_root": [{"path": "/x"}]}, criu._OPTIONS)
    assert found == b"\xaa\x02\x01a\xaa\x02\x01b\xca\x01\x04\x12\x02/x"


def test_what_is_encoded_is_read_again():
    data = criu.message({"empty_ns": 1 << 30, "log_file": "dump.log"}, criu._OPTIONS)
    assert criu.fields(data) == {38: [1 << 30], 10: [b"dump.log"]}


def test_fields_of_other_kinds_are_passed_over():
    assert criu.fields(b"\x09" + b"x" * 8 + b"\x15" + b"y" * 4 + b"\x18\x07")[3] == [7]


def test_an_answer_that_is_cut_off_is_told():
    with pytest.raises(Failed, match="cut off"):
        criu.fields(b"\x08\x80")


def test_criu_is_looked_for_on_the_path(tmp_path):
    search = f"/nowhere:{tmp_path}"
    with pytest.raises(Unsupported, match="criu is not installed"):
        criu.find(search)
    program = tmp_path / "criu"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert criu.find(search) == str(program)


def test_notices_are_answered_and_the_restored_process_is_told(tmp_path):
    program = tmp_path / "criu"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    process = criu.start(environment={"PATH": str(tmp_path)})
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process._socket.close()
    process._socket = ours
    asked = []

    def serve():
        asked.append(criu.fields(theirs.recv(4096)))
        theirs.send(b"\x08\x06\x10\x01\x2a\x10\x0a\x0cpost-restore\x10\x2a")
        asked.append(criu.fields(theirs.recv(4096)))
        theirs.send(b"\x08\x02\x10\x01\x22\x02\x08\x2a")

    server = threading.Thread(target=serve)
    server.start()
    told = []
    with process:
        pid = process.ask(criu.RESTORE, {"pid": 1}, told.append, log="/nowhere")
    server.join()
    theirs.close()
    assert pid == 42
    assert [(notice.script, notice.pid) for notice in told] == [("post-restore", 42)]
    assert asked == [{1: [2], 2: [b"\x10\x01"]}, {1: [6], 3: [1]}]


def test_a_failure_has_what_the_log_says(tmp_path):
    log = tmp_path / "dump.log"
    log.write_text(
        "(00.1) Warn (criu/x.c:1): fine\n(00.2) Error (criu/tty.c:5): tty: no \33[31mpeer\n"
        "(00.3) Error (criu/tun.c:1): tun: Unable to create tun: Operation not permitted\n"
    )
    text = criu._failure(criu.DUMP, {2: [0], 7: [16]}, str(log))
    assert text == "criu failed: type DUMP errno 16: tty: no ?[31mpeer"
    assert "without an answer" in criu._failure(criu.DUMP, {}, "/nowhere")


def test_a_criu_that_fails_is_no_kernel_without_the_feature(tmp_path):
    program = tmp_path / "criu"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    with (
        criu.start(environment={"PATH": str(tmp_path)}) as process,
        pytest.raises(Failed, match="type FEATURE_CHECK errno 0: it ended without an answer"),
    ):
        process.has("mem_track")


def test_one_that_hangs_is_killed_and_one_that_works_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(criu, "LOOK_S", 0.02)
    monkeypatch.setattr(criu, "SILENCE_S", 1)
    program, ends = tmp_path / "criu", tmp_path / "ends"
    timer = threading.Timer(4, ends.touch)
    timer.start()
    for work, why in (
        ("exec /bin/sleep 1000", "criu failed: type DUMP: it has done nothing for 1 seconds"),
        (f"while test ! -e {ends}; do :; done", "it ended without an answer"),
    ):
        program.write_text(f"#!/bin/sh\n{work}\n")
        program.chmod(0o755)
        with (
            criu.start(environment={"PATH": str(tmp_path)}) as process,
            pytest.raises(Failed, match=why),
        ):
            process.ask(criu.DUMP, {"pid": 1}, lambda _: None, log="/nowhere", works_alone=True)
    timer.join()
