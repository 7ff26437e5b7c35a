#!/usr/bin/env bash
# Runs every test, on a machine with a Rust toolchain and nothing else: installs what is missing with
# the system's package manager (as root, or by sudo). Arguments go to the test runner.
#
#   ./test.sh                      all tests
#   ./test.sh -E 'test(openapi)'   some of them (cargo-nextest; with plain cargo: a name)
set -euo pipefail
cd "$(dirname "$0")"
source .ci/lib.sh

command -v cargo >/dev/null || { echo "no cargo: install Rust from https://rustup.rs" >&2; exit 1; }

say "Tools"
# The tests start real Redis servers, of which redis-cli asks how they are.
ensure redis-server redis
ensure redis-cli redis-tools

redis-server --version
cargo --version

# Tests against clusters and Sentinels have waits of their own; more at once than there are processors
# would make them wait for each other.
if cargo nextest --version >/dev/null 2>&1; then
  say "Tests (cargo nextest)"
  exec cargo nextest run --locked --all-targets --no-fail-fast "$@" </dev/null
fi
say "Tests (cargo test)"
# Documentation has no examples to run (nextest would not run them either).
exec cargo test --locked --all-targets --no-fail-fast "$@" </dev/null
