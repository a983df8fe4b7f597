# The host's image: one static binary, certificates and zone data; no shell, no package manager, no plugins.
#
#   docker build -t windlass .
#
# The same sources give the same bytes: versions are pinned by Cargo.lock and by the arguments, paths and times are left out.
# `--build-arg SOURCE_DATE_EPOCH=…` makes it exact. For another architecture, build on it or under QEMU; `cargo xtask release --target` needs
# neither. Nothing here needs BuildKit, nor a platform in FROM, which `az acr build` does not understand.

ARG RUST_VERSION=1.95.0
# renovate: datasource=docker depName=docker.io/library/rust versioning=docker
ARG BASE=docker.io/library/rust:1.95.0-bookworm@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1

FROM ${BASE} AS build
ARG RUST_VERSION
ENV RUSTUP_TOOLCHAIN=${RUST_VERSION} CARGO_TERM_COLOR=never
# One way for every architecture: clang with musl's headers, and Rust's own linker.
# The archive of a Debian release keeps one version of a package, so that a pinned one would soon be gone.
# hadolint ignore=DL3008
RUN cpu="$(uname -m)" \
    && apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates clang llvm musl-dev tzdata \
    && rustup target add "${cpu}-unknown-linux-musl" \
    && printf '%s\n' \
        '[build]' "target = '${cpu}-unknown-linux-musl'" \
        "[target.${cpu}-unknown-linux-musl]" "linker = 'rust-lld'" \
        '[env]' "CC_${cpu}_unknown_linux_musl = 'clang'" "AR_${cpu}_unknown_linux_musl = 'llvm-ar'" \
        "CFLAGS_${cpu}_unknown_linux_musl = '-nostdlibinc -isystem /usr/include/${cpu}-linux-musl'" \
        > "${CARGO_HOME}/config.toml"
WORKDIR /src

# Dependencies, which take minutes and seldom change, apart from the code: the manifests alone, around empty sources.
COPY Cargo.toml Cargo.lock ./
COPY host/Cargo.toml host/
COPY host/core/Cargo.toml host/core/
RUN cp Cargo.toml whole.toml \
    && sed -i '/^members = \[/,/^\]/c members = ["host", "host/core"]' Cargo.toml \
    && mkdir -p host/src host/core/src \
    && echo 'fn main() {}' > host/src/main.rs \
    && touch host/src/lib.rs host/core/src/lib.rs \
    && cargo build --release -p windlass \
    && mv whole.toml Cargo.toml

# The code. Its own lock file again, which the step before had to shorten.
COPY . .
RUN touch host/src/main.rs host/src/lib.rs host/core/src/lib.rs \
    && cargo build --locked --release -p windlass \
    && mkdir -p /files/usr/bin /files/usr/share /files/etc/ssl/certs /files/plugins \
    && cp target/*-unknown-linux-musl/release/windlass /files/usr/bin/ \
    && cp /etc/ssl/certs/ca-certificates.crt /files/etc/ssl/certs/ \
    && cp -r /usr/share/zoneinfo /files/usr/share/ \
    && echo 'windlass:x:65532:65532::/:' > /files/etc/passwd \
    && echo 'windlass:x:65532:' > /files/etc/group

FROM scratch
COPY --from=build /files /
LABEL org.opencontainers.image.title="windlass" \
      org.opencontainers.image.description="A worker runtime: jobs compiled to WebAssembly, with the health of each over HTTP" \
      org.opencontainers.image.source="https://github.com/windlass-run/windlass" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
ENV PATH=/usr/bin
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --retries=3 CMD ["windlass", "health"]
ENTRYPOINT ["windlass"]
CMD ["run", "/plugins"]
