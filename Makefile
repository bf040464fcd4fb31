# `make demo` and `make test` install what is missing (Go is assumed), build, and run.

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# The version is stamped here, so that Go's own stamp, which fails in another user's checkout, is not needed.
BUILD := CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)'
ARGS ?=
FUZZTIME ?= 5s
SOAK ?= 10m

# A race between a test's goroutines shows with several threads, also on a small machine; packages side by side would
# disturb each other's timing, and most of them start servers. Suites that run the binary do not import what it is made
# of, so Go would take their last result for today's: -count 1. The longest suite takes six minutes on two processors of its
# own; the time limit is for what hangs, not for computers that are busy.
TESTFLAGS ?= -race -count 1 -p 2 -timeout 40m

# The packages whose tests need neither a server nor a tool beside Go: not the suites below test, nor those that start PostgreSQL.
UNIT = $(shell go list ./... | grep -vE '/(cmd/postern|machines/local|proxy/backend|tenants/postgres|test/.*)$$')

.DEFAULT_GOAL := build
.PHONY: help build demo test test-all check static unit vet fuzz soak bench lint clean

help: ## this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 10

build: ## bin/postern
	$(BUILD) -o bin/postern ./cmd/postern

demo: ## two tenants on two local PostgreSQL machines that sleep; ARGS=--once for the scripted visit
	./scripts/install-deps.sh
	$(MAKE) build
	./bin/postern demo $(ARGS)

test: ## everything that must pass before a change lands
	./scripts/install-test-deps.sh
	./scripts/install-driver-deps.sh
	./scripts/install-exporter.sh
	$(MAKE) static
	go test $(TESTFLAGS) ./test/e2e ./... # what takes longest begins first
	$(MAKE) fuzz

test-all: ## longer: every test three times in random order, then a minute of fuzzing for each target
	./scripts/install-test-deps.sh
	./scripts/install-driver-deps.sh
	./scripts/install-exporter.sh
	$(MAKE) static
	POSTERN_TEST_LONG=1 go test -race -p 2 -timeout 120m -count 3 -shuffle on ./...
	$(MAKE) fuzz FUZZTIME=60s

check: static unit ## all that needs no server, in two minutes at most on two idle cores

# What is not a test: make test and make test-all run it before all tests, those of unit among them.
static: vet build
	./scripts/check-binary.sh bin/postern
	GOOS=darwin GOARCH=arm64 $(BUILD) -o /dev/null ./cmd/postern
	CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 go vet ./...

unit:
	go test -timeout 2m $(UNIT)

vet:
	@unformatted=$$(gofmt -l .) || exit 1; \
	if [ -n "$$unformatted" ]; then echo "not formatted by gofmt:"; echo "$$unformatted"; exit 1; fi
	go vet ./...

fuzz: ## every fuzz target for FUZZTIME, 5s unless said otherwise
	./scripts/fuzz.sh $(FUZZTIME)

soak: ## ten minutes of load, faults and reloads, then a look at what is left; SOAK=1h for longer
	./scripts/install-test-deps.sh
	POSTERN_SOAK=$(SOAK) go test -count 1 -timeout 0 -v -run '^TestSoak$$' ./test/chaos

bench: ## against a direct connection and PgBouncer; ARGS as `go run ./test/bench -h` says
	./scripts/install-bench-deps.sh
	go run ./test/bench $(ARGS)

lint: vet ## wants go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@latest
	golangci-lint run --timeout 15m

clean: ## away with what was built and downloaded here
	rm -rf bin .cache demo
