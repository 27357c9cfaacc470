# The image of `broker server`: its pinned packages on a Debian without package managers.
#
#   docker build --tag broker .
#   buildah build --format docker --tag broker .
#
# Only the first stage reaches the network, for wheels whose hashes stand in requirements/. The base
# is pinned by tag and digest, and each release names the newest in the line below (docs/adr/0014).
ARG PYTHON_IMAGE=python:3.14.7-slim-trixie@sha256:51dafde81dbdb6ebde285137a295cf18a47ca95234fe388a343719cb97305b3d

# --- Wheels of others, each checked against its hash ---------------------------------------------
FROM ${PYTHON_IMAGE} AS wheels
WORKDIR /build
COPY requirements/image.txt requirements/build.txt requirements/
RUN pip download --no-cache-dir --disable-pip-version-check --require-hashes --no-deps \
        --only-binary :all: --dest /wheels/image --requirement requirements/image.txt \
    && pip download --no-cache-dir --disable-pip-version-check --require-hashes --no-deps \
        --only-binary :all: --dest /wheels/build --requirement requirements/build.txt

# --- Our own wheel, and the environment: without network from here on -----------------------------
FROM wheels AS build
# The commit's time: what is built from the same files is then the same bytes.
ARG SOURCE_DATE_EPOCH=315532800
RUN --network=none python -m venv --without-pip /tools \
    && pip --python /tools/bin/python install --no-index --find-links /wheels/build \
        --require-hashes --no-deps --no-cache-dir --requirement requirements/build.txt
RUN --network=none python -m venv --without-pip /opt/broker \
    && pip --python /opt/broker/bin/python install --no-index --find-links /wheels/image \
        --require-hashes --no-deps --no-cache-dir --no-compile --requirement requirements/image.txt
COPY pyproject.toml README.md LICENSE ./
COPY migrations/ migrations/
COPY broker/ broker/
RUN --network=none /tools/bin/python -m hatchling build --target wheel --directory /wheels/project \
    && pip --python /opt/broker/bin/python install --no-index --no-deps --no-cache-dir \
        --no-compile /wheels/project/credential_broker-*.whl
# Compiled ahead, since nothing can be written at run time; by hash, so that times don't matter.
RUN --network=none /opt/broker/bin/python -m compileall -q --invalidation-mode unchecked-hash \
        /opt/broker/lib

# --- The base without what only an intruder would use ---------------------------------------------
FROM ${PYTHON_IMAGE} AS base
WORKDIR /rootfs
# The list of Debian packages (/var/lib/dpkg) stays: scanners read it.
RUN --network=none groupadd --gid 10001 broker \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/broker \
        --shell /usr/sbin/nologin broker \
    && install --directory --mode 0755 var/lib run \
    && install --directory --mode 1777 tmp \
    && cp --archive /bin /etc /lib* /sbin /usr . \
    && cp --archive /var/lib/dpkg var/lib/ \
    && install --directory --owner 10001 --group 10001 --mode 0700 var/lib/broker \
    && rm -rf etc/apt usr/bin/apt* usr/lib/apt usr/lib/*/libapt-* \
        usr/bin/dpkg* usr/sbin/dpkg* usr/lib/dpkg usr/share/dpkg \
        usr/local/bin/pip* usr/local/bin/idle* usr/local/bin/pydoc* usr/local/lib/python3.*/ensurepip \
        usr/local/lib/python3.*/idlelib usr/local/lib/python3.*/site-packages/* \
    && find . -type f -perm /6000 -exec chmod a-s {} +

# --- The image: one layer of base, one of the broker ----------------------------------------------
FROM scratch
ARG PYTHON_IMAGE
ARG VERSION=0.0.0+unreleased
ARG REVISION=unknown
ARG CREATED=1980-01-01T00:00:00Z
LABEL org.opencontainers.image.title="broker" \
      org.opencontainers.image.description="Temporary, scoped and recorded AWS credentials" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"
COPY --from=base /rootfs/ /
COPY --from=build /opt/broker /opt/broker
# Inside a container the port has no reason to vary, and other addresses than 127.0.0.1 must reach it.
ENV PATH=/opt/broker/bin:/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    BROKER_SERVER__HOST=0.0.0.0 \
    BROKER_SERVER__PORT=8080
# The one folder that is written, and only where it is mounted: key files, or an SQLite database.
WORKDIR /var/lib/broker
USER 10001:10001
EXPOSE 8080
# The server drains: it takes no more connections, ends what is in flight, and writes its log.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-I", "-S", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['BROKER_SERVER__PORT']), timeout=4); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["broker"]
CMD ["server"]
