FROM rust:1.95-slim-bookworm AS builder
WORKDIR /build

# Dependencies in a layer of their own: it is built again only when the manifest or the lock file
# changes. Cargo wants every target that the manifest names to exist, so each gets an empty stub.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src benches data \
    && echo 'fn main() {}' > src/main.rs && echo 'fn main() {}' > benches/micro.rs \
    && touch src/lib.rs \
    && cargo build --release --locked

# COPY keeps the files' own times, which may be older than the stubs' build: touch them, or cargo
# takes the empty stubs for up to date.
COPY . .
RUN touch src/main.rs src/lib.rs \
    && cargo build --release --locked

# distroless/cc rather than debian-slim: the same Debian 12 glibc as the builder and the root
# certificates that rediss:// needs, with no shell and no package manager. The binary does its own
# health check, so nothing else is missed.
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="feature-store" \
      org.opencontainers.image.description="Keeps machine-learning features and serves them at inference time over HTTP and JSON" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"

COPY --from=builder /build/target/release/feature-store /usr/local/bin/feature-store
# An empty directory owned by the server's user: a new volume takes its owner from here.
COPY --from=builder --chown=65532:65532 /build/data /data

ENV FEATURE_STORE_LISTEN=0.0.0.0:8080 \
    FEATURE_STORE_DATA_DIR=/data

# Numeric, because Kubernetes cannot tell from a name that the user is not root.
USER 65532:65532
# Where the server looks for a mounted feature-store.toml.
WORKDIR /etc/feature-store
VOLUME ["/data"]
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s --retries=3 CMD ["feature-store", "healthcheck"]
ENTRYPOINT ["feature-store"]
CMD ["serve"]
