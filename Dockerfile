# One image for every stage: the command picks it (`produce`, `detect`, `recognize`, `index`, `serve`).
#
#   docker build -t ocrstream .                          inference on the CPU
#   docker build -t ocrstream:gpu --build-arg "EXTRAS=ppocr gpu" .    with PyTorch, for NVIDIA GPUs
#
# BASE_IMAGE is any Debian 12: name your own where packages come through a proxy with its own certificate.
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${BASE_IMAGE} AS python
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 ca-certificates \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives /var/log/apt /var/log/dpkg.log

FROM python AS build
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-pip \
    && python3 -m venv --without-pip /opt/ocrstream
WORKDIR /src
# The libraries first: they stay cached until one of these two files changes.
COPY pyproject.toml deploy/constraints.txt ./
ARG EXTRAS=ppocr
ENV PIP_CONSTRAINT=/src/constraints.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -c 'import sys, tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
print(*p["dependencies"], *(d for e in sys.argv[1:] for d in p["optional-dependencies"][e]), sep="\n")' ${EXTRAS} \
    > requirements.txt \
    && pip --python /opt/ocrstream/bin/python install --no-warn-script-location -r requirements.txt
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/ocrstream/bin/python install --no-deps . \
    && install -D -m 755 -t /opt/ocrstream/bin deploy/ocrstream-connected \
    && install -D -m 644 -t /opt/ocrstream/share/kibana deploy/kibana/*

FROM python
RUN groupadd --gid 10001 ocrstream \
    && useradd --uid 10001 --gid ocrstream --create-home --home-dir /var/lib/ocrstream --shell /usr/sbin/nologin ocrstream
COPY --from=build /opt/ocrstream /opt/ocrstream
ENV PATH=/opt/ocrstream/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    OCRSTREAM_DATA_DIR=/var/lib/ocrstream
USER ocrstream
WORKDIR /var/lib/ocrstream
EXPOSE 8077
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ocrstream" \
      org.opencontainers.image.description="Point it at a camera or a video, and a second later every word that was seen can be searched." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# In exec form, so that SIGTERM reaches the stage itself and it finishes what it has in hand.
ENTRYPOINT ["ocrstream"]
CMD ["--help"]
