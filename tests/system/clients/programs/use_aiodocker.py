"""aiodocker: containers, logs, exec, files, events, volumes and networks, all awaited."""

from __future__ import annotations

import asyncio
import io
import tarfile

import aiodocker


def archive(name: str, text: str) -> bytes:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text.encode()))
    return body.getvalue()


async def main() -> None:
    async with aiodocker.Docker() as docker:
        version = await docker.version()
        assert version["ApiVersion"]
        events = docker.events.subscribe()
        volume = await docker.volumes.create({"Name": "aio"})
        network = await docker.networks.create({"Name": "aio", "CheckDuplicate": True})
        container = await docker.containers.create(
            {
                "Image": "busybox",
                "Cmd": ["sh", "-c", "echo out; echo err >&2; read line; echo got $line; exit 3"],
                "OpenStdin": True,
                "StdinOnce": True,
                "AttachStdin": True,
                "HostConfig": {"Binds": ["aio:/data"], "NetworkMode": "aio"},
            },
            name="aio",
        )
        await container.put_archive("/data", archive("note", "written"))
        async with container.attach(stdin=True, stdout=True, stderr=True, logs=True) as stream:
            await container.start()
            execution = await container.exec(["cat", "/data/note"], stdout=True)
            async with execution.start() as output:
                message = await output.read_out()
                assert message is not None
                assert message.data == b"written"
            await stream.write_in(b"line\n")
            ended = await container.wait()
        assert ended["StatusCode"] == 3
        assert await container.log(stdout=True) == ["out\n", "got line\n"]
        assert await container.log(stderr=True) == ["err\n"]
        tar = await container.get_archive("/data/note")
        assert tar.extractfile("note").read() == b"written"
        shown = await container.show()
        assert shown["State"]["ExitCode"] == 3
        while (event := await asyncio.wait_for(events.get(), 20))["Action"] != "die":
            pass
        assert event["Actor"]["Attributes"]["exitCode"] == "3"
        await container.delete()
        await network.delete()
        await volume.delete()
    print("done")


asyncio.run(main())
