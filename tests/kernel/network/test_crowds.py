"""A thousand endpoints on one network, which is nearly what a bridge takes."""

import os
import resource
import subprocess
from functools import partial

import pytest

from berth.network import dns
from berth.network.records import EndpointRequest, NetworkRequest
from kernel.network.test_names import Client
from support.networks import HOST, OUTSIDE, sandbox_request, within
from support.programs import find

COUNT = 1000


@pytest.fixture
def many_descriptors():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("engine", [0], indirect=True)
def test_a_thousand_containers_know_and_reach_each_other_also_after_a_restart(
    many_descriptors, net, engine
):
    engine.run(engine.service.create(NetworkRequest(name="crowd", subnet="10.44.0.0/16")))
    names = [f"c{number}" for number in range(COUNT)]
    for name in names[:-1]:
        engine.connect(name, network="crowd")
    engine.connect(names[-1], (80, 8080), network="crowd")
    held = {name: os.dup(engine.service._sandboxes._held[name].netns_fd) for name in names}
    sleep = (find("sleep"), "3600")
    askers = {n: within(held[n], lambda: subprocess.Popen(sleep)) for n in (names[0], names[500])}
    try:
        last = engine.service.endpoints_of(names[-1])[0]
        server = net.listen(held[names[-1]], 80)

        def check():
            assert len(engine.service.endpoints(last.network_id)) == COUNT
            for name in askers:
                code, answer = Client(net, engine, held[name]).ask(names[-1])
                assert (code, answer[-4:]) == (
                    dns.NO_ERROR,
                    bytes(map(int, last.address.split("."))),
                )
                assert net.talk(server, held[name], (last.address, 80))
            assert net.talk(server, net.outside_fd, (HOST, 8080)) == OUTSIDE

        check()
        engine.close()
        engine.open(*names)
        for name in names:
            request = sandbox_request(name, (EndpointRequest(network="crowd"),))
            opens = partial(os.dup, held[name]) if name in askers else None
            engine.run(engine.service.adopt(request, open_namespace=opens))
        check()
        for name in names:
            engine.run(engine.service.disconnect(name))
        assert engine.service.endpoints(last.network_id) == []
        engine.run(engine.service.remove("crowd"))
    finally:
        for asker in askers.values():
            asker.kill()
            asker.wait()
        for fd in held.values():
            os.close(fd)
