"""Names asked for in containers, by datagrams and connections, known and unknown, sane and hostile."""

import asyncio
import contextlib
import os
import random
import socket
import struct
import time

import pytest

from berth.network import dns, files, resolver, upstream
from berth.network.records import NetworkRequest
from berth.network.resolver import MAX_ASKED, MAX_CONNECTIONS
from support.networks import within
from support.programs import find, run

RESOLVER = "127.0.0.11"
WORLD = bytes((203, 0, 113, 7))


def question(name, kind=dns.A, id_=0x1234):
    return (
        struct.pack(">HHHHHH", id_, 0x0100, 1, 0, 0, 0)
        + dns.encode_name(name)
        + struct.pack(">HH", kind, 1)
    )


class Client:
    """Asks from inside a container, while the engine's loop runs."""

    def __init__(self, net, engine, fd):
        self._net, self._engine, self._fd = net, engine, fd

    def ask(self, name, kind=dns.A, *, stream=False):
        """Return the code of the answer and its last bytes."""
        send = self._stream if stream else self._datagram
        found = self._engine.run(send(question(name, kind)))
        return found[3] & 0xF, found

    async def _datagram(self, data):
        loop = asyncio.get_running_loop()
        sock = self._net.socket(self._fd, socket.SOCK_DGRAM)
        sock.setblocking(False)
        await loop.sock_connect(sock, (RESOLVER, 53))
        await loop.sock_sendall(sock, data)
        return await asyncio.wait_for(loop.sock_recv(sock, 65535), 10)

    async def _stream(self, data):
        sock = self._net.socket(self._fd)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (RESOLVER, 53))
        reader, writer = await asyncio.open_connection(sock=sock)
        writer.write(len(data).to_bytes(2, "big") + data)
        length = int.from_bytes(await asyncio.wait_for(reader.readexactly(2), 10), "big")
        found = await reader.readexactly(length)
        writer.close()
        return found

    def throw(self, packets):
        """Send bytes without waiting for answers."""
        sock = self._net.socket(self._fd, socket.SOCK_DGRAM)
        sock.connect((RESOLVER, 53))
        for packet in packets:
            sock.send(packet)
            self._engine.run(asyncio.sleep(0))


@pytest.fixture
def client(net, engine):
    engine.run(engine.service.create(NetworkRequest(name="named", ipv6=True)))
    sandbox = engine.connect("client", network="named")
    engine.connect("server", network="named")
    return Client(net, engine, sandbox.netns_fd)


class World(asyncio.DatagramProtocol):
    """A name server at an address of the host's loopback that knows every name; on some it is silent."""

    def __init__(self):
        self.asked = []

    def connection_made(self, transport):
        self._transport = transport

    def datagram_received(self, data, address):
        if b"silent" not in data:
            self._last = self.answer(data), address
            self.answer_again()

    def answer_again(self):
        self._transport.sendto(*self._last)

    def answer(self, data):
        asked = dns.parse(data)
        self.asked.append(asked.name)
        return dns.answer(asked, addresses=[WORLD])

    async def serve(self, reader, writer):
        length = int.from_bytes(await reader.readexactly(2), "big")
        found = self.answer(await reader.readexactly(length))
        writer.write(len(found).to_bytes(2, "big") + found)
        await writer.drain()
        writer.close()


@pytest.fixture
def world(engine, monkeypatch, tmp_path):
    """The host's resolver, at 127.0.0.53 as systemd's is."""
    conf, world = tmp_path / "resolv.conf", World()
    conf.write_text("nameserver 127.0.0.53\n")
    monkeypatch.setattr(files, "RESOLV_CONF", str(conf))

    async def begin():
        loop = asyncio.get_running_loop()
        udp, _ = await loop.create_datagram_endpoint(lambda: world, ("127.0.0.53", 53))
        return udp, await asyncio.start_server(world.serve, "127.0.0.53", 53)

    udp, tcp = engine.run(begin())
    yield world
    udp.close()
    tcp.close()
    engine.run(asyncio.sleep(0))


@pytest.mark.parametrize("stream", [False, True], ids=["udp", "tcp"])
def test_a_neighbour_is_known(engine, client, stream):
    (endpoint,) = engine.service.endpoints_of("server")
    for kind, text in ((dns.A, endpoint.address), (dns.AAAA, endpoint.address6)):
        code, found = client.ask("server", kind, stream=stream)
        family = socket.AF_INET if kind == dns.A else socket.AF_INET6
        assert code == dns.NO_ERROR
        assert found.endswith(socket.inet_pton(family, text))


def test_who_share_a_name_are_answered_in_turn_and_all_of_them(engine, client):
    addresses = set()
    for number in range(40):
        engine.connect(f"web{number}", network="named", aliases=("web",))
        (endpoint,) = engine.service.endpoints_of(f"web{number}")
        addresses.add(socket.inet_pton(socket.AF_INET, endpoint.address))

    def ask(**options):
        code, found = client.ask("web", **options)
        assert code == dns.NO_ERROR
        records = found[12 + len(question("web")[12:]) :]
        return [records[i + 12 : i + 16] for i in range(0, len(records), 16)], found

    by_datagram, message = ask()
    assert len(message) <= dns.DATAGRAM_BYTES
    assert message[2] & 2, "it does not say that there are more"
    assert len(by_datagram) == 30
    assert set(by_datagram) < addresses
    by_stream, message = ask(stream=True)
    assert not message[2] & 2
    assert (set(by_stream), len(by_stream)) == (addresses, 40)
    firsts = {ask()[0][0] for _ in range(200)}
    assert len(firsts) > 20, "who is named first hardly changes"


@pytest.mark.parametrize("stream", [False, True], ids=["udp", "tcp"])
def test_other_names_are_asked_of_the_hosts_server_on_its_loopback(client, world, stream):
    code, found = client.ask("example.org", stream=stream)
    assert (code, found[-4:], world.asked) == (dns.NO_ERROR, WORLD, ["example.org"])


def test_without_a_server_the_answer_is_a_failure(engine, client, monkeypatch, tmp_path):
    monkeypatch.setattr(files, "RESOLV_CONF", str(tmp_path / "missing"))
    assert client.ask("example.org")[0] == dns.SERVER_FAILURE


def test_hostile_packets_are_survived(engine, client):
    rng = random.Random(7)
    sane = question("server")
    packets = [rng.randbytes(rng.randrange(1, 512)) for _ in range(300)]
    for _ in range(300):
        broken = bytearray(sane)
        for _ in range(rng.randrange(1, 4)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        packets.append(bytes(broken[: rng.randrange(1, len(broken) + 1)]))
    client.throw(packets)
    assert client.ask("server")[0] == dns.NO_ERROR


@pytest.mark.usefixtures("world")
def test_questions_that_nobody_answers_keep_nobody_else_out(net, engine, client):
    other = Client(net, engine, engine.connect("other", network="named").netns_fd)
    before = len(os.listdir("/proc/self/fd"))
    client.throw(question(f"silent{number}.example") for number in range(1200))
    engine.run(asyncio.sleep(0.1))
    taken = len(os.listdir("/proc/self/fd")) - before - 1  # that of the one who has thrown
    assert taken <= MAX_ASKED
    code, found = other.ask("example.com")
    assert (code, found[-4:]) == (dns.NO_ERROR, WORLD)
    assert client.ask("server")[0] == dns.NO_ERROR


def test_thousands_of_questions_at_once_do_not_keep_the_engine_from_others(net, engine, client):
    count, turns = 2000, 0
    data = question("server")

    async def ask():
        nonlocal turns
        sock = net.socket(client._fd)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (RESOLVER, 53))
        reader, writer = await asyncio.open_connection(sock=sock)
        writer.write((len(data).to_bytes(2, "big") + data) * count)
        answers = asyncio.ensure_future(reader.readexactly(count * (2 + len(data) + 16)))
        while not answers.done():
            turns += 1
            await asyncio.sleep(0)
        writer.close()
        return answers.result()

    assert engine.run(ask()).count(b"server") == count
    assert turns > count


def test_a_container_that_destroys_the_sockets_in_it_keeps_nobody_busy(net, engine, client):
    """Who may NET_ADMIN in a namespace may do that (ss -K)."""
    within(client._fd, lambda: run(find("ss"), "-K", "-t", "-l", "src", RESOLVER))
    sock = net.socket(client._fd)
    with pytest.raises(ConnectionRefusedError):
        sock.connect((RESOLVER, 53))
    before = time.process_time()
    engine.run(asyncio.sleep(0.5))
    assert time.process_time() - before < 0.2
    assert client.ask("server")[0] == dns.NO_ERROR


def test_connections_that_say_nothing_do_not_keep_others_out(net, engine, client):
    for _ in range(MAX_CONNECTIONS + 8):
        sock = net.socket(client._fd)
        sock.connect((RESOLVER, 53))
        sock.send(b"\0")
        engine.run(asyncio.sleep(0))
    assert client.ask("server")[0] == dns.NO_ERROR


async def ask_and_take_nothing(net, fd, *, is_done):
    """Ask by a connection until no more questions are taken, and leave the answers there."""
    sock = net.socket(fd)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    sock.setblocking(False)
    loop, data = asyncio.get_running_loop(), question("server")
    await loop.sock_connect(sock, (RESOLVER, 53))
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(0.5):
            while True:
                await loop.sock_sendall(sock, (len(data).to_bytes(2, "big") + data) * 100)
                await asyncio.sleep(0)
    if is_done:
        sock.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("is_done", [False, True])
def test_who_takes_no_answers_takes_no_descriptors(net, engine, client, monkeypatch, is_done):
    monkeypatch.setattr(resolver, "IDLE_S", 0.2)
    listening = engine.service._sandboxes._held["client"].names[1]
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # of connections, too
    before = len(os.listdir("/proc/self/fd"))
    engine.run(ask_and_take_nothing(net, client._fd, is_done=is_done))

    async def wait():
        async with asyncio.timeout(20):
            while len(os.listdir("/proc/self/fd")) > before + 1:  # that of the one who asks
                await asyncio.sleep(0.05)

    engine.run(wait())
    assert client.ask("server", stream=True)[0] == dns.NO_ERROR


def test_wrong_answers_that_never_end_keep_the_engine_from_nothing(
    engine, client, world, monkeypatch
):
    monkeypatch.setattr(upstream, "TIMEOUT_S", 0.2)
    end = time.monotonic() + 5

    def refuse(*_):
        assert time.monotonic() < end, "nothing else is done"
        world.answer_again()
        return False

    monkeypatch.setattr(dns, "is_answer_to", refuse)
    assert client.ask("example.org")[0] == dns.SERVER_FAILURE
    assert time.monotonic() < end
