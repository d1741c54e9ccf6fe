# Two stages. The first one uses this machine's certificates and package index, which must not stay in the image: only
# the installed packages are copied, and its layers are removed after the build.
ARG BASE
FROM ${BASE} AS packages
# Oban depends on erlpack, which is published as source only
RUN export DEBIAN_FRONTEND=noninteractive \
 && apt-get update -q \
 && apt-get install -q -y --no-install-recommends g++ python3-dev
COPY requirements.txt pip.conf ca-bundle.pem /build/
RUN python3 -m venv /opt/hostapp \
 && PIP_CONFIG_FILE=/build/pip.conf /opt/hostapp/bin/python -m pip install --quiet --no-cache-dir \
      --disable-pip-version-check --no-input -r /build/requirements.txt

FROM ${BASE}
COPY --from=packages /opt/hostapp /opt/hostapp
ENV PATH=/opt/hostapp/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
RUN mkdir -p /srv/harness && chown 65534:65534 /srv/harness
USER 65534:65534
WORKDIR /srv/harness
ENTRYPOINT []
