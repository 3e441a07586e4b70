"""Pulling from a real docker-registry, directly and through a front that breaks things."""

import asyncio
import json
import os

import pytest

from berth.content.store import ContentStore
from berth.errors import Corrupt, NotFound, Unauthorized, Unavailable
from berth.oci.digest import Digest
from berth.oci.platform import Platform
from berth.oci.reference import Reference
from berth.registry.auth import Credentials
from berth.registry.client import RegistryClient
from berth.registry.download import READ_BYTES
from support.registries import MISSING, PASSWORD, USER, Answer, Front, Layout, Registry, basic

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]

BIG_BYTES = 5_000_000
AMD64 = Platform(architecture="amd64")
BLOBS = "/blobs/sha256:"


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry")
    registry = Registry(folder / "registry")
    try:
        single = Layout(folder / "single")
        single.finish(single.image("amd64", ("hello", b"hello\n"), ("big", os.urandom(BIG_BYTES))))
        multiple = Layout(folder / "multiple")
        multiple.finish(
            multiple.image("amd64", ("hello", b"amd64\n")),
            multiple.image("arm64", ("hello", b"arm\n")),
        )
        registry.push(single.folder, "library/single:1")
        registry.push(single.folder, "docker/single:latest", "--format=v2s2")
        registry.push(multiple.folder, "library/multiple:latest", "--all")
        yield registry
    finally:
        registry.close()


@pytest.fixture
def front(registry):
    front = Front(registry)
    yield front
    front.close()


@pytest.fixture
def content(tmp_path):
    return ContentStore(tmp_path / "content")


class Pull:
    """A pull that has ended."""

    def __init__(self, content, name, *, platform=AMD64, auth=None, mirrors=(), times=1):
        self.messages = []
        self.content = content
        asyncio.run(self._run(name, platform, auth, mirrors, times))

    async def _run(self, name, platform, auth, mirrors, times):
        client = RegistryClient(mirrors=mirrors, environment={}, backoff_s=0.001)
        try:
            pulls = [
                client.pull(
                    Reference.parse(name),
                    platform=platform,
                    auth=auth,
                    content=self.content,
                    progress=self.messages.append,
                )
                for _ in range(times)
            ]
            results = await asyncio.gather(*pulls)
            self.image = results[0]
        finally:
            client.close()

    @property
    def statuses(self):
        return [message["status"] for message in self.messages]

    def verify(self):
        image = self.image
        for part in (image.descriptor, image.manifest, image.config, *image.layers):
            data = self.content.read(Digest.parse(part.digest))
            assert len(data) == part.size
        assert list(self.content.ingest_folder.iterdir()) == []
        return json.loads(self.content.read(Digest.parse(image.config.digest)))


@pytest.mark.parametrize("name", ["library/single:1", "docker/single"])
def test_an_image_is_pulled_with_docker_s_messages(registry, content, name):
    pull = Pull(content, f"{registry.host}/{name}")
    assert pull.verify()["architecture"] == "amd64"
    first, *rest = pull.messages
    assert first == {
        "status": f"Pulling from {name.partition(':')[0]}",
        "id": name.partition(":")[2] or "latest",
    }
    for layer in pull.image.layers:
        short = layer.digest.removeprefix("sha256:")[:12]
        own = [message["status"] for message in rest if message["id"] == short]
        assert own[0] == "Pulling fs layer"
        assert own[-2:] == ["Verifying Checksum", "Download complete"]
    shown = next(m for m in rest if m["status"] == "Downloading")
    assert shown["progressDetail"]["current"] <= shown["progressDetail"]["total"]
    assert pull.image.downloaded
    assert [m["status"] for m in pull.image.summary(newer=True)] == [
        f"Digest: {pull.image.descriptor.digest}",
        f"Status: Downloaded newer image for {registry.host}/{name.partition(':')[0]}:{first['id']}",
    ]


def test_what_is_there_is_not_fetched_again(registry, front, content):
    Pull(content, f"{front.host}/library/single:1")
    front.requests.clear()
    pull = Pull(content, f"{front.host}/library/single:1")
    assert not pull.image.downloaded
    assert pull.statuses[1:] == ["Already exists"] * 2
    assert not [path for path, _ in front.requests if BLOBS in path]


def test_pulls_at_the_same_time_fetch_each_blob_once(front, content):
    pull = Pull(content, f"{front.host}/library/single:1", times=4)
    pull.verify()
    blobs = [path for path, _ in front.requests if BLOBS in path]
    assert sorted(blobs) == sorted(set(blobs))
    assert len(blobs) == 3


def test_the_platform_is_chosen_from_an_index(registry, content):
    name = f"{registry.host}/library/multiple"
    assert Pull(content, name).verify()["architecture"] == "amd64"
    arm = Pull(content, name, platform=Platform.parse("linux/arm64"))
    assert arm.verify()["architecture"] == "arm64"
    assert arm.image.descriptor.digest != arm.image.manifest.digest
    with pytest.raises(NotFound) as caught:
        Pull(content, name, platform=Platform.parse("linux/s390x"))
    assert str(caught.value) == (
        "no matching manifest for linux/s390x in the manifest list entries"
    )


def test_images_are_pulled_by_digest(registry, content):
    by_tag = Pull(content, f"{registry.host}/library/single:1")
    digest = by_tag.image.descriptor.digest
    by_digest = Pull(content, f"{registry.host}/library/single@{digest}")
    assert by_digest.image.manifest == by_tag.image.manifest
    assert by_digest.messages[0]["id"] == digest


def test_unknown_images_are_named_as_docker_does(registry, content):
    with pytest.raises(NotFound) as caught:
        Pull(content, f"{registry.host}/library/single:2")
    assert str(caught.value) == (
        f"manifest for {registry.host}/library/single:2 not found: manifest unknown: manifest unknown"
    )
    with pytest.raises(NotFound, match=r"manifest unknown|repository name not known"):
        Pull(content, f"{registry.host}/nothing/here")


def test_nobody_there_is_told_as_go_does(content):
    front = Front(None)
    front.close()
    with pytest.raises(Unavailable) as caught:
        Pull(content, f"{front.host}/a")
    assert str(caught.value) == (
        f'Get "http://{front.host}/v2/": dial tcp {front.host}: connect: connection refused'
    )


def test_a_broken_download_goes_on_where_it_broke(front, content):
    def cut_big_blobs(path, headers):
        full = BLOBS in path and "Range" not in headers
        return Answer(cut_after=3_000_000) if full else None

    def cut_again(path, headers):
        seen = [h for _, h in front.requests if "Range" in h]
        return Answer(cut_after=1_000_000) if "Range" in headers and len(seen) == 1 else None

    front.rules += [cut_big_blobs, cut_again]
    pull = Pull(content, f"{front.host}/library/single:1")
    pull.verify()
    first, second = (
        int(headers["Range"].removeprefix("bytes=").rstrip("-"))
        for _, headers in front.requests
        if "Range" in headers
    )
    assert 3_000_000 - READ_BYTES < first <= 3_000_000
    assert first + 1_000_000 - READ_BYTES < second <= first + 1_000_000


def test_a_registry_without_ranges_is_asked_for_the_whole_again(front, registry, content):
    broken = []

    def cut_once(path, headers):
        if BLOBS in path and "Range" not in headers and path not in broken:
            broken.append(path)
            return Answer(cut_after=2_000_000)
        return None

    def ignore_range(path, headers):
        del headers["Range"]

    front.rules += [cut_once, ignore_range]
    Pull(content, f"{front.host}/library/single:1").verify()
    assert broken


def test_a_connection_that_breaks_for_good_ends_the_pull(front, content):
    front.rules.append(lambda path, _: Answer(cut_after=0) if BLOBS in path else None)
    with pytest.raises(Unavailable, match="unexpected EOF"):
        Pull(content, f"{front.host}/library/single:1")
    assert list(content.ingest_folder.iterdir()) == []


def partials(content):
    return list((content.ingest_folder.parent / "partial").iterdir())


def test_the_next_pull_goes_on_where_one_that_failed_has_ended(front, content):
    front.rules.append(lambda path, _: Answer(cut_after=2_000_000) if BLOBS in path else None)
    front.rules.insert(0, lambda _, headers: Answer(503) if "Range" in headers else None)
    name = f"{front.host}/library/single:1"
    with pytest.raises(Unavailable, match="503"):
        Pull(content, name)
    assert max(path.stat().st_size for path in partials(content)) > 2_000_000 - READ_BYTES
    front.rules.clear()
    front.requests.clear()
    Pull(content, name).verify()
    ranges = [headers["Range"] for _, headers in front.requests if "Range" in headers]
    assert ranges[0].startswith("bytes=1")
    assert len(ranges) == 1
    assert partials(content) == []


def test_a_beginning_that_was_damaged_meanwhile_is_fetched_anew(front, content):
    front.rules.append(lambda path, _: Answer(cut_after=2_000_000) if BLOBS in path else None)
    front.rules.insert(0, lambda _, headers: Answer(503) if "Range" in headers else None)
    name = f"{front.host}/library/single:1"
    with pytest.raises(Unavailable, match="503"):
        Pull(content, name)
    kept = max(partials(content), key=lambda path: path.stat().st_size)
    kept.write_bytes(bytes(kept.stat().st_size))
    front.rules.clear()
    Pull(content, name).verify()


@pytest.mark.parametrize("surplus", [0, 1, 5_000_000])
def test_a_beginning_that_is_all_there_is_or_more_ends_well(registry, content, surplus):
    image = Pull(content, f"{registry.host}/library/single:1").image
    digest = Digest.parse(image.layers[1].digest)
    whole = content.path(digest).read_bytes()
    content.remove(digest)
    kept = content.ingest_folder.parent / "partial" / digest.replace(":", "-")
    kept.write_bytes(whole + bytes(surplus))
    Pull(content, f"{registry.host}/library/single:1").verify()
    assert partials(content) == []


def test_wrong_bytes_are_refused_and_leave_nothing(front, content):
    front.rules.append(lambda path, _: Answer(flip=True) if BLOBS in path else None)
    with pytest.raises(Corrupt, match="filesystem layer verification failed for digest sha256:"):
        Pull(content, f"{front.host}/library/single:1")
    assert list(content.digests()) == []
    assert list(content.ingest_folder.iterdir()) == []
    assert partials(content) == []


def test_a_changed_manifest_is_refused_when_its_digest_was_asked_for(registry, front, content):
    digest = Pull(content, f"{registry.host}/library/single:1").image.descriptor.digest
    front.rules.append(
        lambda path, _: Answer(200, body=b'{"schemaVersion": 2}') if "/manifests/" in path else None
    )
    with pytest.raises(Corrupt, match=f"manifest verification failed for digest {digest}"):
        Pull(content, f"{front.host}/library/single@{digest}")


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_busy_registry_is_asked_again(front, content, status):
    answered = set()

    def busy_once(path, _):
        if path.endswith("/v2/") or path in answered:
            return None
        answered.add(path)
        return Answer(status, {"Retry-After": "0"})

    front.rules.append(busy_once)
    Pull(content, f"{front.host}/library/single:1").verify()
    assert len(answered) == 4


def test_a_registry_that_stays_broken_is_given_up(front, content):
    front.rules.append(lambda path, _: Answer(503) if "/manifests/" in path else None)
    with pytest.raises(Unavailable, match="unexpected HTTP status: 503 Service Unavailable"):
        Pull(content, f"{front.host}/library/single:1")
    assert len([path for path, _ in front.requests if "/manifests/" in path]) == 5


def test_passwords_open_private_registries(tmp_path, content):
    registry = Registry(tmp_path / "private", password=True)
    try:
        layout = Layout(tmp_path / "layout")
        layout.finish(layout.image("amd64", ("hello", b"hello\n")))
        registry.push(layout.folder, "x:1", f"--dest-creds={USER}:{PASSWORD}")
        name = f"{registry.host}/x:1"
        Pull(content, name, auth=Credentials(username=USER, password=PASSWORD)).verify()
        with pytest.raises(Unauthorized, match="no basic auth credentials"):
            Pull(content, name)
        with pytest.raises(Unauthorized, match="unauthorized: authentication required"):
            Pull(content, name, auth=Credentials(username=USER, password="wrong"))
    finally:
        registry.close()


class Tokens:
    """Rules of an authorization server, and of a registry that wants its tokens."""

    def __init__(self, front, *, uses=1000):
        self.front = front
        self.uses = uses
        self.issued = 0
        self.asked = []

    def issue(self, path, headers):
        if not path.startswith("/token?"):
            return None
        self.asked.append((path, headers.get("Authorization")))
        self.issued += 1
        return Answer(200, body=json.dumps({"token": f"t{self.issued}"}).encode())

    def demand(self, path, headers):
        if headers.get("Authorization") == f"Bearer t{self.issued}" and self.issued:
            self.uses -= 1
            if self.uses >= 0:
                return None
            self.uses = 1000
        challenge = f'Bearer realm="http://{self.front.host}/token",service="r, s"'
        return Answer(401, {"WWW-Authenticate": challenge})


def test_tokens_are_fetched_kept_and_renewed(front, content):
    tokens = Tokens(front, uses=2)
    front.rules += [tokens.issue, tokens.demand]
    credentials = Credentials(username=USER, password=PASSWORD)
    Pull(content, f"{front.host}/library/single:1", auth=credentials).verify()
    assert tokens.issued == 2
    path, authorization = tokens.asked[-1]
    assert authorization == basic(USER, PASSWORD)
    assert path == (
        "/token?scope=repository%3Alibrary%2Fsingle%3Apull&service=r%2C+s&account=someone"
    )


def test_a_token_that_allows_too_little_means_denied(front, content):
    tokens = Tokens(front)
    challenge = 'Bearer realm="http://{}/token",service="s",error="insufficient_scope"'

    def demand(path, headers):
        return Answer(401, {"WWW-Authenticate": challenge.format(front.host)})

    front.rules += [tokens.issue, demand]
    with pytest.raises(NotFound) as caught:
        Pull(content, f"{front.host}/library/single:1")
    assert str(caught.value) == (
        f"pull access denied for {front.host}/library/single, repository does not exist or may require"
        " 'docker login': denied: requested access to the resource is denied"
    )


def test_authorization_stays_with_the_registry_when_redirected(front, registry, content):
    elsewhere = Front(registry)
    try:
        tokens = Tokens(front)

        def redirect(path, _):
            if BLOBS in path:
                return Answer(307, {"Location": f"http://{elsewhere.host}{path}"})
            return None

        front.rules += [tokens.issue, tokens.demand, redirect]
        Pull(content, f"{front.host}/library/single:1").verify()
        assert len(elsewhere.requests) == 3
        assert not [h for _, h in elsewhere.requests if "Authorization" in h]
        assert all("Authorization" in h for p, h in front.requests if BLOBS in p)
    finally:
        elsewhere.close()


def test_mirrors_come_before_docker_hub_and_get_no_password(front, content):
    pull = Pull(
        content,
        "single:1",
        mirrors=[f"http://{front.host}"],
        auth=Credentials(username=USER, password=PASSWORD),
    )
    pull.verify()
    assert pull.messages[0] == {"status": "Pulling from library/single", "id": "1"}
    assert pull.image.summary(newer=False)[1] == {
        "status": "Status: Image is up to date for single:1"
    }
    assert not [headers for _, headers in front.requests if "Authorization" in headers]


def test_a_mirror_that_lacks_an_image_is_passed_over(front, registry, content):
    lacking = Front(registry)
    lacking.rules.append(lambda path, _: Answer(404) if "/manifests/" in path else None)
    try:
        mirrors = [f"http://{lacking.host}", f"http://{front.host}"]
        Pull(content, "single:1", mirrors=mirrors).verify()
        asked, given = ([path for path, _ in one.requests] for one in (lacking, front))
        assert not [path for path in asked if BLOBS in path]
        assert [path for path in given if BLOBS in path]
    finally:
        lacking.close()


def test_a_cancelled_pull_ends_its_downloads(front, registry, content):
    async def scenario():
        arrived = asyncio.Event()

        def on_progress(message):
            if message["status"] == "Retrying in 60 seconds":
                arrived.set()

        client = RegistryClient(environment={}, backoff_s=500)
        front.rules.append(
            lambda path, _: (
                Answer(cut_after=0)
                if BLOBS in path and len([p for p, _ in front.requests if BLOBS in p]) > 1
                else None
            )
        )
        pull = asyncio.ensure_future(
            client.pull(
                Reference.parse(f"{front.host}/library/single:1"),
                platform=AMD64,
                auth=None,
                content=content,
                progress=on_progress,
            )
        )
        await asyncio.wait_for(arrived.wait(), 30)
        pull.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pull
        client.close()

    asyncio.run(scenario())


def test_tags_come_in_pages(front):
    def page(path, _):
        if "/tags/list" not in path:
            return None
        body = {"name": "x", "tags": ["2"] if "last" in path else ["1"]}
        link = {} if "last" in path else {"Link": '</v2/x/tags/list?last=1>; rel="next"'}
        return Answer(200, link, json.dumps(body).encode())

    front.rules.append(page)

    async def run():
        client = RegistryClient(environment={}, backoff_s=0.001)
        try:
            return await client.tags(Reference.parse(f"{front.host}/x"), None)
        finally:
            client.close()

    assert asyncio.run(run()) == ["1", "2"]


def test_registries_elsewhere_are_asked_through_the_proxy(registry, front, content):
    domain = f"registry.invalid:{registry.port}"

    async def run():
        client = RegistryClient(
            insecure=(domain,),
            environment={
                "HTTP_PROXY": f"http://user:word@{front.host}",
                "NO_PROXY": "other.invalid",
            },
            backoff_s=0.001,
        )
        try:
            return await client.pull(
                Reference.parse(f"{domain}/library/single:1"),
                platform=AMD64,
                auth=None,
                content=content,
                progress=lambda _: None,
            )
        finally:
            client.close()

    assert asyncio.run(run()).downloaded
    asked = {path.partition("/v2/")[0] for path, _ in front.requests}
    assert asked == {f"http://{domain}"}
    told = {headers.get("proxy-authorization") for _, headers in front.requests}
    assert told == {basic("user", "word")}
