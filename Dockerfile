# Builds a static binary. The image contains nothing else.
#   docker build -t calgate .
#   docker run -p 8080:8080 -v ./config:/etc/calgate:ro -e CALGATE_CONFIG=/etc/calgate/calgate.toml -e CAL_API_KEY calgate
# Set [listen] address = "0.0.0.0:8080" in config/calgate.toml, because the container has its own loopback interface. Mount the
# folder instead of the file: if an editor replaces a mounted file, the container continues to see the old one.

# The version of rust-toolchain.toml. .dockerignore excludes that file, because it would install clippy and rustfmt.
FROM rust:1.95.0-alpine AS build
RUN apk add --no-cache build-base cmake perl
WORKDIR /src
COPY . .
# The compiler of this image links musl statically by default.
RUN cargo build --release --locked --bin calgate

FROM scratch
COPY --from=build /src/target/release/calgate /calgate
USER 65534:65534
EXPOSE 8080
# The image contains no other program, so calgate checks its own health through the admin listener. If [listen] admin is not
# 127.0.0.1:9090, set CALGATE_ADMIN to the same address. If it is "off", run the container with --no-healthcheck.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/calgate", "health"]
ENTRYPOINT ["/calgate"]
CMD ["serve"]
