import os
import pty
import signal
import struct
import termios
from fcntl import ioctl

import pytest

from berth.cli import terminal
from berth.errors import InvalidArgument


@pytest.fixture
def tty():
    master, slave = pty.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


def test_raw_mode_ends_with_the_block(tty):
    master, slave = tty
    before = termios.tcgetattr(slave)
    with terminal.RawMode(slave):
        os.write(master, b"\x03\r")
        assert os.read(slave, 10) == b"\x03\r"
        assert not termios.tcgetattr(slave)[3] & (termios.ECHO | termios.ISIG | termios.ICANON)
    assert termios.tcgetattr(slave) == before


def test_raw_mode_ends_with_an_error(tty):
    before = termios.tcgetattr(tty[1])
    with pytest.raises(RuntimeError), terminal.RawMode(tty[1]):
        raise RuntimeError
    assert termios.tcgetattr(tty[1]) == before


def test_the_size_is_the_terminals(tty, tmp_path):
    ioctl(tty[1], termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    assert terminal.size(tty[1]) == (33, 101)
    with (tmp_path / "file").open("wb") as file:
        assert terminal.size(file.fileno()) == (0, 0)
        with pytest.raises(InvalidArgument, match="the input device is not a TTY"):
            terminal.require_terminal(file.fileno())


def test_signals_are_bytes_and_their_handlers_come_back():
    before = signal.getsignal(signal.SIGUSR1)
    with terminal.Signals((signal.SIGUSR1,)) as signals:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert os.read(signals.fd, 10) == bytes((signal.SIGUSR1,))
    assert signal.getsignal(signal.SIGUSR1) == before
