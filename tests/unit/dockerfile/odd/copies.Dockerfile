FROM scratch
COPY --parents --exclude=*.md --exclude=b --chown=1:2 --chmod=u=rwX,go=rX a/./b c d/
COPY --link=false --from=0 ["a b", "c"]
ADD --unpack --keep-git-dir=true --checksum=sha256:00 https://h/r.git#v1:dir /r
ADD --unpack=false a.tar /a
