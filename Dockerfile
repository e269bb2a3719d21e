# A static txreel with the client programs that bases and restores run
# (pg_dump, pg_restore). They read servers of their own version and older.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -o /txreel ./cmd/txreel

FROM debian:trixie-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends postgresql-client ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /var/lib/txreel --create-home txreel
COPY --from=build /txreel /usr/local/bin/txreel
USER txreel
ENTRYPOINT ["txreel"]
