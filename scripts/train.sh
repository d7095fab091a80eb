#!/bin/sh
# Trains a network: with no arguments a small convolutional network on the embedded handwritten digits.
# Arguments are those of `shadegrad train`; `scripts/train.sh --help` lists them.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/driver.sh"
ensure_cargo
ensure_driver
# The working folder stays the caller's: paths among the arguments are relative to it.
exec cargo run --release --manifest-path "$root/Cargo.toml" -p shadegrad-cli -- train "$@"
