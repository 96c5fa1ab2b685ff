# The container image: one static binary on an empty base. No shell, no package manager, no libc.
# Try it without Docker: `make image-test`.

# The Debian release has a glibc that resolves names without loading a library (2.34 or later), so
# that a static binary can do it on an empty base.
FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /src
# Such as "otel", for traces: docs/tracing.md.
ARG FEATURES=""
COPY . .
# Dependencies stay in the two caches when only the sources change; `touch` keeps a cached build from being taken for
# newer than an older checkout.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    find src config web -type f -exec touch {} + \
    && deploy/build-static.sh /rollout-token --features "$FEATURES"

FROM scratch
LABEL org.opencontainers.image.title="rollout-token" \
      org.opencontainers.image.description="Mints short-lived Rollout auth tokens for the session your users already have." \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
# For calls to your own back ends and identity providers over https.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /rollout-token /rollout-token
# `rollout-token dev`, which signs everybody in, refuses to run where this says production.
ENV APP_ENV=production
# nobody: a number, since there is no /etc/passwd, and Kubernetes' runAsNonRoot wants one.
USER 65534:65534
EXPOSE 8080
# Asks /healthz at server.listen. If you change that key, do it by the variable
# ROLLOUT__SERVER__LISTEN: this command does not see the --config of the service's own.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["/rollout-token", "health"]
ENTRYPOINT ["/rollout-token"]
CMD ["serve"]
