# A serving image: the wheel and what it needs to serve, no PyTorch, no compiler, no root.
#
#   docker build -t rorqual .
#   docker run -v ./server.toml:/etc/rorqual/server.toml:ro -v rorqual:/var/lib/rorqual -p 8000:8000 rorqual
#
# docs/deploy.md says what server.toml needs in a container.
FROM python:3.11-slim-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
RUN python -m venv /build
ENV PATH=/build/bin:$PATH
COPY requirements/run.lock requirements/node.lock requirements/
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements/run.lock
COPY scripts/ensure_node.py scripts/
RUN python scripts/ensure_node.py
COPY web/ web/
RUN cd web && npm ci --ignore-scripts && npm run build
COPY pyproject.toml CMakeLists.txt LICENSE README.md ./
COPY configs/ configs/
COPY keys/ keys/
COPY src/ src/
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .
# The build's own tools stay behind.
RUN python -m venv /opt/rorqual \
 && /opt/rorqual/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements/run.lock \
 && /opt/rorqual/bin/pip install --no-cache-dir --no-deps /wheels/*.whl \
 && /opt/rorqual/bin/pip uninstall -y cmake ninja scikit-build-core pip

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/rorqual rorqual
COPY --from=build /opt/rorqual /opt/rorqual
ENV PATH=/opt/rorqual/bin:$PATH XDG_DATA_HOME=/var/lib PYTHONUNBUFFERED=1
USER rorqual
WORKDIR /var/lib/rorqual
VOLUME /var/lib/rorqual
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/ready', timeout=4)"]
ENTRYPOINT ["rorqual"]
CMD ["serve", "--config", "/etc/rorqual/server.toml"]
