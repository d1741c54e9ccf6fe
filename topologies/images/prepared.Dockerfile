# The server runs as the user nobody; some servers refuse root. Its files are written when it starts.
ARG BASE
FROM ${BASE}
USER root
RUN mkdir -p /srv/harness && chown 65534:65534 /srv/harness
USER 65534:65534
WORKDIR /srv/harness
ENTRYPOINT []
