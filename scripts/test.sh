#!/bin/sh
# Runs every test of the workspace. Arguments go to `cargo test`.
set -eu
cd "$(dirname "$0")/.."
. scripts/driver.sh
ensure_cargo
ensure_driver
exec cargo test --workspace "$@"
