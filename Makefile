# stanch: find what a long-running process is losing.
# Two targets do everything on a fresh Debian 12 with Go and git: demo, check.

GO        ?= go
TOOLS     := $(CURDIR)/.tools
LINT_V    := v2.15.0
LINT      := $(TOOLS)/golangci-lint-$(LINT_V)
VERSION   := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
BUILD     := $(GO) build -trimpath -ldflags '-X main.version=$(VERSION)'

# What each target needs from Debian beyond Go and git.
CC_PKGS    := gcc g++ libc6-dev
CHECK_PKGS := $(CC_PKGS) binutils gdb valgrind libc6-dbg musl-tools dwz xz-utils zstd python3 python3-dev \
              nginx redis-server memcached libjemalloc2 libjemalloc-dev libtcmalloc-minimal4 \
              clang llvm clang-format util-linux chromium tmux prometheus strace systemd
BENCH_PKGS := $(CC_PKGS) gdb heaptrack libc6-dbg valgrind redis-server redis-tools util-linux lsof strace procps atop

.DEFAULT_GOAL := build
.PHONY: build bundle lint-web demo demo-daemon check test lint gen check-gen bench accuracy soak help clean

# The charts of the HTML page: TypeScript, which esbuild bundles into what Go
# embeds. A page without them has pictures that stand still.
WEB     := ui/web
BUNDLE  := internal/ui/web/dist/page.js
MODULES := $(WEB)/node_modules/.package-lock.json

build: ## build bin/stanch (the default); where npm is, with charts that zoom
	@if ! command -v npm >/dev/null || ! $(MAKE) --no-print-directory -s bundle; then \
		echo "charts in HTML will stand still: bundling them needs npm, and its registry once"; fi
	$(BUILD) -o bin/stanch ./cmd/stanch

bundle: $(BUNDLE) ## bundle the charts of the HTML page

$(BUNDLE): $(MODULES) $(wildcard $(WEB)/src/*) $(WEB)/build.mjs
	npm --prefix $(WEB) run --silent build

$(MODULES): $(WEB)/package-lock.json
	npm --prefix $(WEB) ci --no-audit --no-fund

lint-web: $(MODULES) ## types, rules and format of the TypeScript
	npm --prefix $(WEB) run --silent check

demo: build ## start a small leaking daemon, diagnose it, show the report
	@scripts/need $(CC_PKGS)
	@scripts/demo

demo-daemon: ## build bin/demo, a daemon that grows by steps and says why in its log
	@scripts/need $(CC_PKGS)
	@mkdir -p bin
	gcc -g -O2 -pthread -o bin/demo testdata/leaky/demo.c

check: ## everything CI runs: format, lint, generated files, all tests
	@scripts/need $(CHECK_PKGS)
	@command -v npm >/dev/null || scripts/need npm
	$(MAKE) --no-print-directory lint lint-web bundle check-gen test

test: build ## all tests
	$(GO) test -p 1 -timeout 15m ./...

lint: $(LINT) ## gofmt, vet and the linters of .golangci.yml; clang-format for the C
	$(LINT) run ./...
	clang-format --dry-run -Werror probe/*.[ch] testdata/leaky/*.[ch] testdata/leaky/*.cc testdata/legacy/*.[ch] internal/source/fdtrace/bpf/*.[ch]

$(LINT):
	GOBIN=$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_V)
	mv $(TOOLS)/golangci-lint $@

gen: ## make the generated files anew: the probe's machine code, the BPF programs
	$(GO) generate ./...

check-gen: ## fail when a generated file is not what its source makes
	@scripts/check-gen

bench: build ## the figures of docs/BENCHMARKS.md, beside gcore, heaptrack and Valgrind
	@scripts/need $(BENCH_PKGS)
	$(GO) run ./bench -o docs/BENCHMARKS.md

accuracy: ## how often trends are judged rightly: some 4,000 generated traces, and the recordings
	$(GO) run ./testdata/series accuracy
	$(GO) test ./internal/logs -count=1 -timeout 20m -run Accuracy -v -accuracy

soak: build ## the harm suite for an hour
	@scripts/need $(CHECK_PKGS)
	STANCH_SOAK=1h $(GO) test -timeout 90m -run Harm ./cmd/stanch

clean: ## remove what was built
	rm -rf bin $(TOOLS) $(WEB)/node_modules internal/ui/web/dist/page.*

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
