from __future__ import annotations

import pytest

from berth.configuration.settings import Settings
from berth.engine import storage
from berth.engine.models import HostConfig
from berth.errors import Unsupported
from berth.kernel import quotas
from berth.snapshots.limits import Limits


class Nowhere:
    are_possible = False


def test_a_size_is_refused_where_there_are_no_quotas():
    storage.check(HostConfig(), Nowhere())
    with pytest.raises(Unsupported, match="only for overlay over xfs with 'pquota'"):
        storage.check(HostConfig(storage_opt={"size": "1G"}), Nowhere())


@pytest.mark.parametrize(
    ("own", "of_engine", "found"),
    [
        (None, (), 0),
        ({"size": "1.5M"}, (), 3 << 19),
        ({"size": "2g"}, ("overlay2.size=1g",), 2 << 30),
        (None, ("overlay2.size=10K",), 10 << 10),
    ],
)
def test_a_containers_own_size_counts_more_than_the_engines(own, of_engine, found):
    settings = Settings(storage_opts=of_engine)
    assert storage.limit_bytes(HostConfig(storage_opt=own), settings) == found


def test_a_file_system_without_quotas_has_no_projects(tmp_path):
    with quotas.open_directory("/proc") as fd:
        assert not quotas.enforces_projects(fd)
    limits = Limits(tmp_path)
    if not limits.are_possible:
        assert limits.project_of(tmp_path) == 0
    limits.give_up(0)
    assert limits.project_of(tmp_path / "missing") == 0
