"""The contract of drivers of networks, for those that the kernel of the machine outside does not have."""

import pytest

from contract.test_network_drivers import (  # noqa: F401 - tests and their fixtures
    engine,
    net,
    network,
    test_a_network_goes_when_nobody_is_in_it_and_leaves_nothing,
    test_an_address_may_be_chosen_once,
    test_an_internal_network_leads_nowhere,
    test_members_come_and_go_while_they_run,
    test_members_outlive_a_restart,
    test_members_reach_each_other_by_both_versions_and_by_name,
)

pytestmark = [
    pytest.mark.parametrize("engine", [0], indirect=True),
    pytest.mark.parametrize("network", ["ipvlan", "ipvlan of layer 3"], indirect=True),
]
