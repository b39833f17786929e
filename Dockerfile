# syntax=docker/dockerfile:1
# The images that `cargo xtask demo` makes without Docker, for those who have it:
#   docker build --target operator --tag localhost/coterie-operator:0.1.0 .
#   docker build --target runtime  --tag localhost/coterie:0.1.0 .
# and that of ranks on GPUs, which has the kernels' machine code (the chart's images.gpuRuntime):
#   docker build --target runtime-gpu --tag localhost/coterie-gpu:0.1.0 .

ARG RUST_IMAGE=rust:1.95-bookworm
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${RUST_IMAGE} AS source
WORKDIR /source
COPY . .

FROM source AS build-operator
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --release --locked --package coterie-operator --bin coterie-operator \
    && install -D target/release/coterie-operator /out/coterie-operator

FROM source AS build-runtime
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --release --locked --package coterie-runtime --bin coterie \
    && install -D target/release/coterie /out/coterie

FROM ${BASE_IMAGE} AS operator
COPY --from=build-operator /out/coterie-operator /usr/local/bin/coterie-operator
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/coterie-operator"]

FROM ${BASE_IMAGE} AS runtime
COPY --from=build-runtime /out/coterie /usr/local/bin/coterie
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/coterie"]

# Compiled by NVRTC from its wheel; no GPU and no driver are needed for that.
FROM source AS build-cubins
RUN apt-get update && apt-get install --yes --no-install-recommends python3-venv \
    && python3 -m venv /nvrtc \
    && /nvrtc/bin/pip install --require-hashes --requirement kernels/cu/requirements.txt
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    COTERIE_NVRTC="$(find /nvrtc -name libnvrtc.so.13)" COTERIE_CUBINS=/out/cubins \
    cargo test --release --locked --package coterie-kernels --test cubins -- --ignored

FROM runtime AS runtime-gpu
COPY --from=build-cubins /out/cubins /usr/local/share/coterie/cubins
