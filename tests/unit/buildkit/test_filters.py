from __future__ import annotations

import pytest

from berth.buildkit.filters import Filter
from berth.errors import InvalidArgument

FIELDS = {"id": "sha256:abc", "type": "regular", "shared": "true", "description": "RUN echo a,b"}


@pytest.mark.parametrize(
    ("texts", "chosen"),
    [
        ([], True),
        ([""], True),
        (["shared"], True),
        (["private"], False),
        (["shared==true"], True),
        (["type==regular,id~=abc"], True),
        (["type==regular,id~=xyz"], False),
        (["type!=regular", "shared"], True),
        (["nothing!=x"], True),
        (["nothing~=.*"], False),
        (["id~=^sha256:a.c$"], True),
        (['description=="RUN echo a,b"'], True),
        (['description~="echo a"'], True),
    ],
)
def test_filters_choose(texts, chosen):
    assert Filter(texts).chooses(FIELDS) is chosen


@pytest.mark.parametrize(
    "text", ["=", "a=b", "a==", "id~=[", "id~=(a+)+b", "id~=a*b*c*", f"id~={'a' * 300}", 'a=="b']
)
def test_what_is_no_filter_is_refused(text):
    with pytest.raises(InvalidArgument):
        Filter([text])
