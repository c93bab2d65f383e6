# Everything a developer or an operator builds, tests or installs. `make help` lists it.
# Needed beforehand: Rust and apt, as root or with sudo. What else is missing is installed by the target that needs it.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PREFIX ?= /usr/local
DESTDIR ?=
NODES ?= 3
SEEDS ?= 1-10000

BUILD_PACKAGES := gcc libc6-dev
RUN_PACKAGES := default-jre-headless zookeeper
TEST_PACKAGES := $(BUILD_PACKAGES) $(RUN_PACKAGES) iproute2 postgresql haproxy
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help demo build test lint bench bench-failover sim windows install uninstall

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: ## had and hactl, debug build, in target/debug
	@.ci/rust
	@.ci/need $(BUILD_PACKAGES)
	cargo build --locked -p controlplane -p hactl

demo: build ## A real cluster on this machine, and its dashboard (NODES=3)
	@.ci/need $(RUN_PACKAGES)
	@.ci/demo $(TARGET)/debug $(NODES)

test: ## Every test: units, properties, simulation, real processes
	@.ci/rust
	@.ci/need $(TEST_PACKAGES)
	.ci/test

lint: ## Formatting, clippy, rules of the layout, documentation
	@.ci/rust clippy rustfmt
	@.ci/need $(BUILD_PACKAGES)
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet
	cargo test --workspace --locked --quiet --test layout

bench: ## The figures of the README, measured on this machine (release build)
	@.ci/rust
	@.ci/need $(TEST_PACKAGES)
	cargo build --release --locked --workspace --bins
	cargo run --release --locked -p ha-tests --bin bench

bench-failover: ## Write gaps under faults beside Patroni and pg_auto_failover (root; an hour; ARGS="--runs 1 --fault switchover")
	@.ci/rust
	@.ci/need $(TEST_PACKAGES)
	cargo build --release --locked --workspace --bins
	HA_PEERS=$$(.ci/peers) HA_TEST_BIN=$(TARGET)/release $(TARGET)/release/bench-failover $(ARGS)

sim: ## The seeded simulation: SEEDS=1-10000, or SEEDS=17 with its whole trace; DB=1 for the database protocol
	@.ci/rust
	@.ci/need $(BUILD_PACKAGES)
	cargo run --locked --quiet -p ha-tests --bin sim -- $(if $(DB),db) $(SEEDS)

windows: ## Cross-build had.exe and hactl.exe, and run them under wine
	@.ci/rust
	@.ci/need $(RUN_PACKAGES) $(BUILD_PACKAGES)
	.ci/windows

install: ## Programs, systemd unit, example configuration, completions, man pages (PREFIX, DESTDIR)
	@.ci/install "$(TARGET)" "$(DESTDIR)" "$(PREFIX)"

uninstall: ## What `make install` put there
	@.ci/install --remove "$(DESTDIR)" "$(PREFIX)"
