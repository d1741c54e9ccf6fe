# The cluster is initialised once, in the image, so that a service starts without initdb. The service copies it to
# memory, or uses it on disk. The image has no password: logins over TCP fail until a run sets one.
ARG BASE
FROM ${BASE}
USER root
RUN install -d -o postgres -g postgres -m 0755 /srv/harness
USER postgres
RUN initdb --pgdata=/srv/harness/cluster --username=harness_admin --encoding=UTF8 --locale=C.UTF-8 \
      --auth-local=reject --auth-host=scram-sha-256 --no-sync
WORKDIR /srv/harness
ENTRYPOINT []
