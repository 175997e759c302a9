# The artifact in a container: `docker build -t edgetpu-repro .`, then
# `docker run --rm -v "$PWD/out:/artifact/results" edgetpu-repro` runs `make reproduce`.
# No step after the build needs a network.
FROM python:3.11-slim-bookworm
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /artifact
COPY . .
RUN make .venv/installed
CMD ["make", "reproduce"]
