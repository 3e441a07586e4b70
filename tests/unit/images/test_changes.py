from __future__ import annotations

import pytest

from berth.errors import InvalidArgument
from berth.images.changes import apply_changes
from berth.oci.image import ImageConfig


def changed(*changes, **config):
    return apply_changes(ImageConfig(**config), list(changes))


def test_every_instruction_changes_its_part():
    config = changed(
        'CMD ["a", "b c"]',
        "ENTRYPOINT run it",
        "env A=1 B='two words'",
        "ENV C three words",
        "LABEL x=y z=",
        "USER 1000:1000",
        "WORKDIR /srv",
        "WORKDIR data",
        "EXPOSE 80 53/udp 8000-8001",
        'VOLUME ["/a", "/b"]',
        "VOLUME /c",
        "STOPSIGNAL SIGQUIT",
        "ONBUILD RUN x",
    )
    assert config.cmd == ["a", "b c"]
    assert config.entrypoint == ["/bin/sh", "-c", "run it"]
    assert config.env == ["A=1", "B=two words", "C=three words"]
    assert config.labels == {"x": "y", "z": ""}
    assert config.user == "1000:1000"
    assert config.working_dir == "/srv/data"
    assert set(config.exposed_ports or ()) == {"80/tcp", "53/udp", "8000/tcp", "8001/tcp"}
    assert set(config.volumes or ()) == {"/a", "/b", "/c"}
    assert config.stop_signal == "SIGQUIT"
    assert config.on_build == ["RUN x"]


def test_a_variable_is_replaced_where_it_was():
    assert changed("ENV A=3", env=["A=1", "B=2"]).env == ["A=3", "B=2"]


def test_the_original_stays_as_it_was():
    config = ImageConfig(labels={"a": "b"})
    apply_changes(config, ["LABEL c=d"])
    assert config.labels == {"a": "b"}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("RUN x", "RUN is not a valid change command"),
        ("FROM x", "FROM is not a valid change command"),
        ("CMD", "requires at least one argument"),
        ("EXPOSE http", "invalid containerPort: http"),
        ("EXPOSE 70000", "invalid containerPort: 70000"),
        ("EXPOSE 80/icmp", "invalid containerPort"),
        ("ENV A", "must have two arguments"),
        ("ENV A=b c", "can't find ="),
        ("LABEL 'a=b", "looking for matching single-quote"),
    ],
)
def test_what_is_wrong_is_said(change, text):
    with pytest.raises(InvalidArgument, match=text):
        changed(change)
