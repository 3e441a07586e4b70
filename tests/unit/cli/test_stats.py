from berth.cli.stats import cpu_percent, memory_used, row

SAMPLE = {
    "id": "ab" * 32,
    "name": "/web",
    "cpu_stats": {"cpu_usage": {"total_usage": 300}, "system_cpu_usage": 2000, "online_cpus": 4},
    "precpu_stats": {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000},
    "memory_stats": {
        "usage": 3 << 20,
        "limit": 10 << 20,
        "stats": {"total_inactive_file": 1 << 20},
    },
    "networks": {"eth0": {"rx_bytes": 1000, "tx_bytes": 5}, "eth1": {"rx_bytes": 1, "tx_bytes": 0}},
    "blkio_stats": {
        "io_service_bytes_recursive": [
            {"op": "Read", "value": 4096},
            {"op": "write", "value": 1},
            {"op": "Total", "value": 5000},
        ]
    },
    "pids_stats": {"current": 3},
}


def test_a_row_is_as_dockers():
    assert row(SAMPLE, whole=False) == {
        "BlockIO": "4.1kB / 1B",
        "CPUPerc": "80.00%",
        "Container": "web",
        "ID": "abababababab",
        "MemPerc": "20.00%",
        "MemUsage": "2MiB / 10MiB",
        "Name": "web",
        "NetIO": "1kB / 5B",
        "PIDs": "3",
    }


def test_nothing_known_is_nothing_used():
    assert cpu_percent({}) == 0
    assert memory_used({}) == 0
    assert row({}, whole=True)["MemPerc"] == "0.00%"


def test_cgroup_v2_names_the_cache_differently():
    stats = {"usage": 50, "stats": {"inactive_file": 20}}
    assert memory_used({"memory_stats": stats}) == 30
