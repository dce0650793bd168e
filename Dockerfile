# One image for every role: serve (the default), runner, worker, and Dask's scheduler.
#
#   docker build -t softxent .
#
# Where the network asks for a certificate authority of its own: --secret id=ca_bundle,src=FILE.

ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /build
COPY requirements.lock pyproject.toml ./
# The lock has more than a service needs: uv picks what the extras ask for, in the lock's versions, and
# refuses what has not the lock's hashes.
RUN --mount=type=secret,id=ca_bundle,target=/run/ca_bundle,required=false \
    if [ -s /run/ca_bundle ]; then export PIP_CERT=/run/ca_bundle SSL_CERT_FILE=/run/ca_bundle; fi \
    && python3 -m venv tools && python3 -m venv --without-pip /opt/softxent \
    && sed -n '/^uv==/,/[^\\]$/p' requirements.lock > uv.lock \
    && tools/bin/pip install --quiet --no-cache-dir --require-hashes -r uv.lock \
    && pinned() { tools/bin/uv pip compile --quiet --no-header --constraints requirements.lock "$@"; } \
    && pinned pyproject.toml --extra service --extra tracing -o service.txt \
    && echo hatchling | pinned - -o hatchling.txt \
    && install() { tools/bin/uv pip install --quiet --link-mode copy --compile-bytecode \
        --require-hashes --constraints requirements.lock "$@"; } \
    && install --python /opt/softxent -r service.txt \
    && install --python tools -r hatchling.txt
# Machine code for two levels of processors; cpuid tells at the start which is read.
COPY kernels kernels
RUN for level in x86-64-v3 x86-64-v4; do \
        NUMBA_CPU_NAME=$level NUMBA_CPU_FEATURES='' PYTHONPATH=kernels /opt/softxent/bin/python -c \
        'from softxent._kernels.loop.precompile import precompile; precompile(2)' || exit 1; \
    done
COPY README.md LICENSE ./
COPY service service
# hadolint ignore=DL3003
RUN tools/bin/uv build --quiet --wheel --no-build-isolation --python tools --offline \
    && tools/bin/uv pip install --quiet --offline --no-deps --link-mode copy --compile-bytecode \
        --python /opt/softxent dist/*.whl \
    && cd /opt/softxent/lib/python3*/site-packages \
    && rm -r {numba,numpy/*}/tests \
    && mv /build/kernels/softxent/_kernels/__pycache__/kernels-* softxent/_kernels/__pycache__/

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="softxent" \
      org.opencontainers.image.description="Softmax cross-entropy, loss and gradient, as a service" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
# What parallel kernels run on; slim images lack it. /data is of group 0, so that any user of that group
# may write there (--user 2000:0).
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 \
    && apt-get clean && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --home-dir /nonexistent softxent \
    && install -d -o 10001 -g 0 -m 2775 /data
COPY --from=build /opt/softxent /opt/softxent
COPY deploy/entrypoint.sh /usr/local/bin/softxent-entrypoint
ENV PATH=/opt/softxent/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SOFTXENT_HOST=0.0.0.0 \
    SOFTXENT_PORT=8000 \
    SOFTXENT_DATA=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
# Of the role serve; the others have nothing to ask, and switch it off.
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s CMD ["python", "-c", \
    "from os import environ; from urllib.request import urlopen; urlopen(f'http://127.0.0.1:{environ[\"SOFTXENT_PORT\"]}/v2/health/ready', timeout=4)"]
ENTRYPOINT ["softxent-entrypoint"]
CMD ["serve"]
