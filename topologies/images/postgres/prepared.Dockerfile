# The cluster is initialised here, once, so that a start does not run initdb: it is copied into memory, or used as it is.
# No password is in the image: nobody can log in over TCP until a run sets its own.
ARG BASE
FROM ${BASE}
USER root
RUN install -d -o postgres -g postgres -m 0755 /srv/harness
USER postgres
RUN initdb --pgdata=/srv/harness/cluster --username=harness_admin --encoding=UTF8 --locale=C.UTF-8 \
      --auth-local=reject --auth-host=scram-sha-256 --no-sync
WORKDIR /srv/harness
ENTRYPOINT []
