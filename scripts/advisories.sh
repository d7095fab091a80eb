#!/bin/sh
# Holds the dependencies against RustSec's list of advisories, by whichever of `cargo audit` and `cargo deny` is installed. Both
# fetch the list, so this is no part of the tests, which need no network.
set -eu
cd "$(dirname "$0")/.."
for lock in Cargo.lock examples/window/Cargo.lock; do
    [ -f "$lock" ] || continue
    folder=$(dirname "$lock")
    printf '%s\n' "$lock:"
    if cargo audit --version >/dev/null 2>&1; then
        cargo audit --file "$lock"
    elif cargo deny --version >/dev/null 2>&1; then
        cargo deny --manifest-path "$folder/Cargo.toml" check advisories
    else
        printf '%s\n' "shadegrad: neither cargo-audit nor cargo-deny is installed, nothing was checked. Install one with" \
            "    cargo install --locked cargo-audit" "and run this again." >&2
        exit 2
    fi
done
