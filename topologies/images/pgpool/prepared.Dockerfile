# The server runs as nobody; its files are written by the run.
ARG BASE
FROM ${BASE}
USER root
RUN mkdir -p /srv/harness && chown 65534:65534 /srv/harness
USER 65534:65534
WORKDIR /srv/harness
ENTRYPOINT []
