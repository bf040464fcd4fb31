# The gate in an image with nothing else in it: docker build --build-arg VERSION=$(git describe --tags --always) .

FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unknown
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION}" -o /postern ./cmd/postern

# Nothing but the binary and the certificate roots for verify-full: no shell, and an account without rights.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /postern /postern
USER 65532:65532
# SIGTERM drains: give it the configuration's timeouts.drain (docker stop --time, kill_timeout on Fly).
STOPSIGNAL SIGTERM
ENTRYPOINT ["/postern"]
CMD ["serve", "--config", "/etc/postern/postern.yaml"]
