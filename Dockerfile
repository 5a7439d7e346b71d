# Docker images of effx; docs/image.md explains how to run them.
#
#   docker build --target cpu     -t effx:cpu .
#   docker build --target profile -t effx:profile .
#   docker build --target full    -t effx:full .
#
# Base images are referenced by tag; docs/image.md explains how to pin them by digest.
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm
ARG TENSORRT_IMAGE=nvcr.io/nvidia/tensorrt:25.10-py3

# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY effx effx
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE} AS cpu
COPY docker /effx/docker
COPY constraints.txt /effx/
RUN --mount=from=wheel,source=/wheel,target=/wheel /effx/docker/install.sh cpu /wheel/effx-*.whl \
    && useradd --uid 10001 --create-home effx \
    && install --directory --owner effx /engines /results
ENV PATH=/opt/effx/bin:$PATH
LABEL org.opencontainers.image.title="effx cpu" \
      org.opencontainers.image.description="Measures effx engines on ONNX Runtime's CPU provider" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 10001
WORKDIR /home/effx
VOLUME ["/engines", "/results"]
ENTRYPOINT ["/effx/docker/start.sh"]

# hadolint ignore=DL3006
FROM ${TENSORRT_IMAGE} AS profile
COPY docker /effx/docker
COPY constraints.txt /effx/
RUN --mount=from=wheel,source=/wheel,target=/wheel /effx/docker/install.sh profile /wheel/effx-*.whl \
    && /opt/effx/bin/python -c 'import pynvml, tensorrt' \
    && useradd --uid 10001 --create-home effx \
    && install --directory --owner effx /engines /results
ENV PATH=/opt/effx/bin:$PATH \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
LABEL org.opencontainers.image.title="effx profile" \
      org.opencontainers.image.description="Measures effx engines on TensorRT" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 10001
WORKDIR /home/effx
VOLUME ["/engines", "/results"]
ENTRYPOINT ["/effx/docker/start.sh"]

# hadolint ignore=DL3006
FROM ${TENSORRT_IMAGE} AS full
COPY docker /effx/docker
COPY constraints.txt /effx/
RUN --mount=from=wheel,source=/wheel,target=/wheel /effx/docker/install.sh full /wheel/effx-*.whl \
    && /opt/effx/bin/python -c 'import onnxruntime, pynvml, tensorrt, torch, transformers' \
    && useradd --uid 10001 --create-home effx \
    && install --directory --owner effx /checkpoints /engines /results
ENV PATH=/opt/effx/bin:$PATH \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
LABEL org.opencontainers.image.title="effx full" \
      org.opencontainers.image.description="Trains, exports and measures with effx on NVIDIA GPUs" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 10001
WORKDIR /home/effx
VOLUME ["/checkpoints", "/engines", "/results"]
ENTRYPOINT ["/effx/docker/start.sh"]
