# not a directive
# escape=`
FROM scratch AS a
MAINTAINER somebody <s@example.org>
ENV old form  with blanks
ENV a=b \
    # comment
    c="d e" f=g\ h
HEALTHCHECK --interval=1m --start-interval=5s --retries=3 CMD curl x
HEALTHCHECK none
SHELL ["/bin/bash", "-c"]
WORKDIR relative/path
STOPSIGNAL SIGUSR1
EXPOSE 80 90-92/udp
VOLUME /a /b
ENTRYPOINT []
ONBUILD COPY --from=b x y
