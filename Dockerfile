# The program with its first-party plugins, built from a checkout; docs/start.md says how to run it.
# Processors: docker build -t mimic-keras .
# GPUs:       docker build -t mimic-keras:gpu --build-arg EXTRAS=plugins,gpu .
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
COPY . /source
WORKDIR /source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . ./plugins/* && cp constraints.txt /wheels/

FROM python:${PYTHON}-slim
ARG EXTRAS=plugins
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --constraint /wheels/constraints.txt --find-links /wheels "mimic-keras[${EXTRAS}]"
# Everything that a run writes is in /data, or in /tmp, so that any user may run it.
ENV HOME=/tmp MIMIC_KERAS_HOME=/data/cache
RUN install --directory --mode 1777 /data
WORKDIR /data
USER 1000:1000
ENTRYPOINT ["mimic-keras"]
CMD ["--help"]
