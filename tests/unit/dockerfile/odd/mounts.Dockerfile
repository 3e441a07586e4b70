# syntax=docker/dockerfile:1
# check=skip=all
# escape=`
ARG BASE=busybox

FROM --platform=$BUILDPLATFORM ${BASE:-scratch} AS Build
run --mount=type=cache,target=/x,"id=a,b" `
    --mount=from=tools,target=/t `
# a comment in the middle

    --network=none --security=sandbox [ "a", "b c" ]
RUN --mount=type=secret,id=k ['not', 'json']
