"""The messages of BuildKit's protocol: as much of them as berth reads or writes.

A field is ``name=number:type``; without a type it is a string, ``*`` says that there are many. What is not
listed is skipped when it is read, as protobuf has it. On the wire messages have no names, so these have none
of the packages they come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

if TYPE_CHECKING:
    from google.protobuf.message import Message

PACKAGE = "berth.buildkit"

DEFINITIONS = {
    # Anybody's
    "Empty": "",
    "Timestamp": "seconds=1:int64 nanos=2:int32",
    "Any": "type_url=1 value=2:bytes",
    "RpcStatus": "code=1:int32 message=2 details=3:*Any",
    "Bytes": "data=1:bytes",
    "HealthRequest": "service=1",
    "HealthResponse": "status=1:int32",
    # moby.buildkit.v1.Control
    "Platform": "Architecture=1 OS=2 Variant=3",
    "Version": "package=1 version=2 revision=3",
    "GCPolicy": "all=1:bool keepDuration=2:int64 reservedSpace=3:int64 filters=4:*string maxUsedSpace=5:int64"
    " minFreeSpace=6:int64",
    "Worker": "ID=1 Labels=2:map<string> platforms=3:*Platform GCPolicy=4:*GCPolicy"
    " BuildkitVersion=5:Version",
    "Workers": "record=1:*Worker",
    "Info": "buildkitVersion=1:Version",
    "Exporter": "Type=1 Attrs=2:map<string>",
    "CacheEntry": "Type=1 Attrs=2:map<string>",
    "CacheOptions": "Exports=4:*CacheEntry Imports=5:*CacheEntry",
    "SolveRequest": "Ref=1 ExporterDeprecated=3 ExporterAttrsDeprecated=4:map<string> Session=5 Frontend=6"
    " FrontendAttrs=7:map<string> Cache=8:CacheOptions Entitlements=9:*string"
    " FrontendInputs=10:map<Definition> Internal=11:bool SourcePolicy=12:bytes Exporters=13:*Exporter"
    " SourcePolicySession=15",
    "SolveResponse": "ExporterResponse=1:map<string>",
    "StatusRequest": "Ref=1",
    "Status": "vertexes=1:*Vertex statuses=2:*VertexStatus logs=3:*VertexLog warnings=4:*VertexWarning",
    "Vertex": "digest=1 inputs=2:*string name=3 cached=4:bool started=5:Timestamp completed=6:Timestamp"
    " error=7",
    "VertexStatus": "ID=1 vertex=2 name=3 current=4:int64 total=5:int64 timestamp=6:Timestamp"
    " started=7:Timestamp completed=8:Timestamp",
    "VertexLog": "vertex=1 timestamp=2:Timestamp stream=3:int64 msg=4:bytes",
    "VertexWarning": "vertex=1 level=2:int64 short=3:bytes detail=4:*bytes url=5 info=6:SourceInfo"
    " ranges=7:*Range",
    "SourceInfo": "filename=1 data=2:bytes language=4",
    "Range": "start=1:Position end=2:Position",
    "Position": "line=1:int32 character=2:int32",
    "UsageRequest": "filter=1:*string",
    "Usage": "record=1:*UsageRecord",
    "UsageRecord": "ID=1 Mutable=2:bool InUse=3:bool Size=4:int64 CreatedAt=6:Timestamp"
    " LastUsedAt=7:Timestamp UsageCount=8:int64 Description=9 RecordType=10 Shared=11:bool"
    " Parents=12:*string",
    "PruneRequest": "filter=1:*string all=2:bool keepDuration=3:int64 reservedSpace=4:int64"
    " maxUsedSpace=5:int64 minFreeSpace=6:int64",
    "HistoryRequest": "ActiveOnly=1:bool Ref=2 EarlyExit=3:bool",
    "HistoryEvent": "type=1:int32",
    # moby.buildkit.v1.frontend.LLBBridge
    "Cap": "ID=1 Enabled=2:bool",
    "Pong": "FrontendAPICaps=1:*Cap LLBCaps=2:*Cap Workers=3:*Worker",
    "Definition": "def=1:*bytes metadata=2:map<OpMetadata>",
    "OpMetadata": "",
    "BridgeSolve": "Definition=1:Definition Frontend=2 FrontendOpt=3:map<string>"
    " FrontendInputs=13:map<Definition> Evaluate=14:bool SourcePolicies=15:*bytes",
    "BridgeSolved": "ref=1 result=3:Result",
    "Ref": "id=1 def=2:Definition",
    "Refs": "refs=1:map<Ref>",
    "Result": "ref=3:Ref refs=4:Refs metadata=10:map<bytes>",
    "Return": "result=1:Result error=2:RpcStatus",
    "RefRequest": "Ref=1 FilePath=2",
    "FileData": "Data=1:bytes",
    "FileStat": "stat=1:Stat",
    "Op": "inputs=1:*Input source=3:SourceOp",
    "Input": "digest=1 index=2:int64",
    "SourceOp": "identifier=1 attrs=2:map<string>",
    # What a client's session serves
    "Stat": "path=1:bytes mode=2:uint32 uid=3:uint32 gid=4:uint32 size=5:int64 modTime=6:int64"
    " linkname=7:bytes devmajor=8:int64 devminor=9:int64 xattrs=10:map<bytes>",
    "Packet": "type=1:int32 stat=2:Stat ID=3:uint32 data=4:bytes",
    "CredentialsRequest": "Host=1",
    "Credentials": "Username=1 Secret=2",
    "SecretRequest": "ID=1",
    "Secret": "data=1:bytes",
    "AgentRequest": "ID=1",
}

_Field = descriptor_pb2.FieldDescriptorProto
SCALARS = {
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
    "bool": _Field.TYPE_BOOL,
    "int32": _Field.TYPE_INT32,
    "uint32": _Field.TYPE_UINT32,
    "int64": _Field.TYPE_INT64,
}


def _set_type(field: descriptor_pb2.FieldDescriptorProto, kind: str) -> None:
    if kind in SCALARS:
        field.type = SCALARS[kind]
    else:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"


def _add_field(message: descriptor_pb2.DescriptorProto, text: str) -> None:
    name, _, rest = text.partition("=")
    number, _, kind = rest.partition(":")
    field = message.field.add(name=name, number=int(number), label=_Field.LABEL_OPTIONAL)
    if kind.startswith("map<"):
        entry = message.nested_type.add(
            name="".join(part.title() for part in name.split("_")) + "Entry"
        )
        entry.options.map_entry = True
        for key, at, of in (("key", 1, "string"), ("value", 2, kind[4:-1])):
            _set_type(entry.field.add(name=key, number=at, label=_Field.LABEL_OPTIONAL), of)
        kind = f"*{message.name}.{entry.name}"
    if kind.startswith("*"):
        field.label = _Field.LABEL_REPEATED
    _set_type(field, kind.removeprefix("*") or "string")


def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(
        name="berth/buildkit.proto", package=PACKAGE, syntax="proto3"
    )
    for name, fields in DEFINITIONS.items():
        message = file.message_type.add(name=name)
        for text in fields.split():
            _add_field(message, text)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


_POOL = _pool()
_classes: dict[str, type[Message]] = {
    name: message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))
    for name in DEFINITIONS
}


def of(name: str) -> type[Message]:
    """Return the class of a message."""
    return _classes[name]
