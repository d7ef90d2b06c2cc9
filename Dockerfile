# syntax=docker/dockerfile:1
# Quickchange in a container: the embedded models and the shipped adapters are inside, nothing is fetched at run time.
#
#   docker build -t quickchange .
#   docker run --stop-timeout 35 -p 127.0.0.1:8000:8000 -e QUICKCHANGE_INSECURE=true quickchange
#   docker run --stop-timeout 35 -p 8000:8000 -v adapters:/app/adapters \
#       -v ./keys:/app/keys:ro -e QUICKCHANGE_API_KEYS_FILE=/app/keys/api-keys.txt quickchange
#
# A container has to listen on every address, and without API keys the server refuses that, so that nobody opens the
# upload of adapters to a network by accident. The first 'docker run' publishes the port to this machine only and says
# that no keys are wanted; the second is for a network, with keys made by 'quickchange keys add OWNER --scope predict --file
# keys/api-keys.txt', once the file belongs to the user 10001. It mounts the folder: a mounted file would stay the old one
# when keys are added or revoked.

FROM python:3.11-slim AS build
# For the kernels; without a compiler the installation goes on, and torch does their work, slower.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
RUN python -m venv /opt/quickchange
ENV PATH=/opt/quickchange/bin:$PATH
COPY pyproject.toml constraints.txt README.md ./
COPY service service
COPY training training
# What serving needs and no more: none of the extras. To train on the server, install '.[train]', leave out
# QUICKCHANGE_MAX_TRAINING_JOBS below, and put QUICKCHANGE_JOBS_DIR on a volume that the user may write.
RUN pip install --no-cache-dir -c constraints.txt .

FROM python:3.11-slim AS serve
RUN useradd --system --uid 10001 --no-create-home --home-dir /app --shell /usr/sbin/nologin quickchange
WORKDIR /app
COPY --from=build /opt/quickchange /opt/quickchange
COPY --chown=10001:10001 adapters adapters
ENV PATH=/opt/quickchange/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HF_HUB_OFFLINE=1 \
    QUICKCHANGE_HOST=0.0.0.0 \
    QUICKCHANGE_PORT=8000 \
    QUICKCHANGE_ADAPTERS_DIR=/app/adapters \
    QUICKCHANGE_MAX_TRAINING_JOBS=0
USER 10001:10001
# A named volume starts with the shipped adapters and keeps what is uploaded.
VOLUME ["/app/adapters"]
EXPOSE 8000
# SIGTERM drains: not ready at once, requests in flight are answered, exit code 0. That takes up to
# QUICKCHANGE_DRAIN_TIMEOUT (30 s), hence --stop-timeout above.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:%s/health/ready' % os.environ['QUICKCHANGE_PORT'], timeout=4)"]
ENTRYPOINT ["quickchange", "serve"]
