from pyroute2.netlink.nfnetlink import nftsocket

from berth.kernel import nftables as nft

T = nft.Table("t")


def read(kind, message):
    """Decode with pyroute2 what we encoded."""
    other = kind(message.encode(1))
    other.decode()
    assert (other["nfgen_family"], other["header"]["type"] >> 8) == (2, 10)
    return other


def expressions(*parts):
    rule = read(nftsocket.nft_rule_msg, nft.rule(T, "c", *parts))
    return [
        (entry.get_attr("NFTA_EXPR_NAME"), dict(entry.get_attr("NFTA_EXPR_DATA")["attrs"]))
        for entry in rule.get_attr("NFTA_RULE_EXPRESSIONS")
    ]


def test_a_batch_is_framed():
    begin, inner, end = nft.batch([nft.add_table(T)])
    assert (begin.kind, end.kind) == (0x10, 0x11)
    assert begin.body == end.body == b"\0\0\0\x0a"
    assert read(nftsocket.nft_table_msg, inner).get_attr("NFTA_TABLE_NAME") == "t"


def test_a_base_chain_has_hook_priority_type_and_policy():
    message = nft.base_chain(T, "guard", kind="filter", hook=nft.PREROUTING, priority=nft.RAW)
    chain = read(nftsocket.nft_chain_msg, message)
    assert chain.get_attr("NFTA_CHAIN_TYPE") == "filter"
    hook = dict(chain.get_attr("NFTA_CHAIN_HOOK")["attrs"])
    assert hook == {"NFTA_HOOK_HOOKNUM": 0, "NFTA_HOOK_PRIORITY": -300}
    assert chain.get_attr("NFTA_CHAIN_POLICY") == nft.ACCEPT


def test_a_map_has_the_types_and_sizes_of_its_concatenations():
    key, data = (nft.IPV4_ADDR, nft.INET_PROTO, nft.INET_SERVICE), (nft.IPV4_ADDR, nft.INET_SERVICE)
    message = nft.named_set(T, "ports", key, number=5, data=data)
    found = read(nftsocket.nft_set_msg, message)
    assert found.get_attr("NFTA_SET_FLAGS") == {"NFT_SET_MAP"}
    assert found.get_attr("NFTA_SET_KEY_TYPE") == (7 << 12) + (12 << 6) + 13
    assert found.get_attr("NFTA_SET_KEY_LEN") == 12
    assert found.get_attr("NFTA_SET_DATA_TYPE") == (7 << 6) + 13
    assert found.get_attr("NFTA_SET_DATA_LEN") == 8


def test_elements_have_keys_data_and_the_ends_of_intervals():
    parts = [nft.element(b"key1", b"data"), *nft.interval(b"from", b"next")]
    message = nft.add_elements(T, "s", parts)
    found = read(nftsocket.nft_set_elem_list_msg, message)
    mapped, first, after = found.get_attr("NFTA_SET_ELEM_LIST_ELEMENTS")
    assert mapped.get_nested("NFTA_SET_ELEM_KEY", "NFTA_DATA_VALUE") == b"key1"
    assert mapped.get_nested("NFTA_SET_ELEM_DATA", "NFTA_DATA_VALUE") == b"data"
    assert first.get_attr("NFTA_SET_ELEM_FLAGS") is None
    assert after.get_nested("NFTA_SET_ELEM_KEY", "NFTA_DATA_VALUE") == b"next"
    assert after.get_attr("NFTA_SET_ELEM_FLAGS") == {1}


def test_deleting_elements_is_the_same_message_of_another_type():
    added = nft.add_elements(T, "s", [nft.element(b"key1")])
    deleted = nft.delete_elements(T, "s", [nft.element(b"key1")])
    assert deleted.body == added.body
    assert (added.kind & 0xFF, deleted.kind & 0xFF) == (12, 14)


def test_a_set_of_interface_names_is_looked_up():
    meta, lookup = expressions(nft.meta(nft.META_IIFNAME), nft.lookup("bridges"))
    assert meta == (
        "meta",
        {"NFTA_META_DREG": "NFT_REG_1", "NFTA_META_KEY": "NFT_META_IIFNAME"},
    )
    assert lookup == ("lookup", {"NFTA_LOOKUP_SET": "bridges", "NFTA_LOOKUP_SREG": "NFT_REG_1"})


def test_a_port_is_loaded_from_the_transport_header():
    ((name, payload),) = expressions(nft.destination_port(nft.REG32[2]))
    assert name == "payload"
    assert payload["NFTA_PAYLOAD_BASE"] == "NFT_PAYLOAD_TRANSPORT_HEADER"
    assert (payload["NFTA_PAYLOAD_OFFSET"], payload["NFTA_PAYLOAD_LEN"]) == (2, 2)


def test_nat_masquerade_and_verdicts_are_named():
    found = expressions(nft.dnat(12, 13), nft.masquerade(), nft.verdict(nft.DROP), nft.jump("next"))
    assert [name for name, _ in found] == ["nat", "masq", "immediate", "immediate"]
    assert found[0][1]["NFTA_NAT_TYPE"] == "NFT_NAT_DNAT"
    drop, jump = (
        dict(data["NFTA_IMMEDIATE_DATA"].get_attr("NFTA_DATA_VERDICT")["attrs"])
        for _, data in found[2:]
    )
    assert drop == {"NFTA_VERDICT_CODE": "NF_DROP"}
    assert jump == {"NFTA_VERDICT_CODE": "NFT_JUMP", "NFTA_VERDICT_CHAIN": "next"}
