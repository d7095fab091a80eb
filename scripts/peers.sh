#!/bin/sh
# The training steps of models/benches/training on shadegrad and on burn, in one process, with ratios (benches/peers); then on
# PyTorch, if python3 has it. Arguments are names of steps: all without any. SHADEGRAD_PEERS_FEATURES=vulkan lets burn compile
# to SPIR-V. The first build takes some twenty processor minutes, and burn's first step of a network up to two more.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
. scripts/driver.sh
ensure_cargo
ensure_driver
CARGO_TARGET_DIR="$root/target/peers" cargo run --manifest-path benches/peers/Cargo.toml \
    --features "${SHADEGRAD_PEERS_FEATURES:-}" -- "$@"
if python3 -c 'import torch' 2>/dev/null; then
    python3 benches/peers/pytorch.py "$@"
else
    say "python3 has no torch: PyTorch was left out"
fi
