# The container image: one static binary on an empty base, without a shell or a package manager. `make image-test`
# builds and tests it, even without Docker.

# With the glibc of this Debian release (2.34 or later), a static binary resolves host names without loading a library,
# so it works on an empty base.
FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /src
# Additional Cargo features, such as "otel" for traces: see docs/tracing.md.
ARG FEATURES=""
COPY . .
# If only the sources change, downloaded and compiled dependencies are reused from the two caches. `touch` makes the
# sources newer than a cached build, so that cargo compiles them even after an older commit was checked out.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    find src config docs web -type f -exec touch {} + \
    && deploy/build-static.sh /rollout-token --features "$FEATURES"

FROM scratch
LABEL org.opencontainers.image.title="rollout-token" \
      org.opencontainers.image.description="Mints short-lived Rollout auth tokens for the session your users already have." \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
# CA certificates for HTTPS calls to your backends and identity providers.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /rollout-token /rollout-token
# `rollout-token dev` treats every caller as signed in unless extractors are configured. It refuses to run if this
# variable is set to production.
ENV APP_ENV=production
# The user is "nobody" as a number: the image has no /etc/passwd, and Kubernetes' runAsNonRoot requires a number.
USER 65534:65534
EXPOSE 8080
# The health check calls /healthz at server.listen. It does not get the service's --config option, so set this key with
# the variable ROLLOUT__SERVER__LISTEN, not in a file that --config names.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["/rollout-token", "health"]
ENTRYPOINT ["/rollout-token"]
CMD ["serve"]
