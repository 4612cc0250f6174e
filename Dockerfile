# Two stages: a static binary is built, and nothing else goes into the image.
#   docker build -t calgate .
#   docker run -p 8080:8080 -v ./config:/etc/calgate:ro -e CALGATE_CONFIG=/etc/calgate/calgate.toml -e CAL_API_KEY calgate
# with [listen] address = "0.0.0.0:8080" in config/calgate.toml, as loopback is the container's own. It is the folder that is
# mounted: where an editor replaces a file that is mounted by itself, the container goes on seeing the old one.

# The version of rust-toolchain.toml, which is not copied (.dockerignore): it would fetch clippy and rustfmt into the image.
FROM rust:1.95.0-alpine AS build
RUN apk add --no-cache build-base cmake perl
WORKDIR /src
COPY . .
# The compiler of this image links musl statically by itself.
RUN cargo build --release --locked --bin calgate

FROM scratch
COPY --from=build /src/target/release/calgate /calgate
USER 65534:65534
EXPOSE 8080
# The program is the only one in the image, so it asks after its own health, on the admin listener: where [listen] admin is not
# 127.0.0.1:9090, set CALGATE_ADMIN to the same; where it is "off", run with --no-healthcheck.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/calgate", "health"]
ENTRYPOINT ["/calgate"]
CMD ["serve"]
