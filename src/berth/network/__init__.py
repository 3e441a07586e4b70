"""Networks of containers: bridges, addresses, published ports, resolv.conf and hosts."""
