# One image; the command decides what a container is:
#   python -m service                     the API (the default)
#   python -m workers                     a worker
#   python -m migrations upgrade          the database's schema, once before the others
#
#   docker build -t anneal .
#   docker build -t anneal:cuda --build-arg TORCH_INDEX_URL=https://download.pytorch.org/whl/cu130 .

FROM python:3.11-slim AS build
# Where PyTorch's builds come from: without CUDA (some 200 MB instead of several GB) unless said otherwise.
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH

# What changes least comes first: PyTorch, then the other dependencies, then the sources.
COPY constraints.txt ./
RUN pip install "$(grep '^pip==' constraints.txt)"
# A build's local tag (2.13.0+cpu) sorts above the plain version, so that the named index wins.
RUN pip install --only-binary=:all: --constraint constraints.txt --extra-index-url "$TORCH_INDEX_URL" torch
COPY pyproject.toml ./
COPY scripts/requirements.py scripts/
RUN python scripts/requirements.py server production > requirements.txt \
    && pip install --only-binary=:all: --constraint constraints.txt --requirement requirements.txt
COPY README.md LICENSE ./
COPY anneal anneal
COPY service service
COPY workers workers
COPY store store
COPY learning learning
COPY migrations migrations
RUN pip install --no-deps --build-constraint constraints.txt .

FROM python:3.11-slim
# Numeric, so that an orchestrator can see that it is not root.
RUN groupadd --gid 10001 anneal \
    && useradd --uid 10001 --gid anneal --home-dir /data --no-create-home --shell /usr/sbin/nologin anneal \
    && install --directory --owner=anneal --group=anneal --mode=0700 /data
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 ANNEAL_DATA_DIR=/data
WORKDIR /data
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# For the API; docker-compose.yml gives the workers their own.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-m", "service.probe"]
CMD ["python", "-m", "service"]
