#!/bin/sh
# Opens the window of examples/window, in which a network trains live. With `check` it runs under a virtual display (Xvfb),
# paints points, measures its frames and fails unless it stays responsive; the last frame goes to the file named after it.
#
#   scripts/window.sh
#   scripts/window.sh check docs/embedding.png
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
. scripts/driver.sh
ensure_cargo
ensure_driver
export CARGO_TARGET_DIR="$root/target/window"
cargo build --manifest-path examples/window/Cargo.toml
window="$CARGO_TARGET_DIR/debug/shadegrad-window"
[ "${1:-}" = check ] || exec "$window"

if ! command -v Xvfb >/dev/null 2>&1; then
    if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
        say "installing Xvfb and the libraries that windows need"
        apt-get update
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
            xvfb libx11-6 libx11-xcb1 libxcursor1 libxi6 libxrandr2 libxkbcommon-x11-0
    else
        fail "the check needs Xvfb: sudo apt-get install xvfb libxcursor1 libxi6 libxrandr2 libxkbcommon-x11-0"
    fi
fi
# The server chooses a free display and says which.
number=$(mktemp)
Xvfb -displayfd 3 -screen 0 1024x768x24 -nolisten tcp 3>"$number" 2>/dev/null &
server=$!
trap 'kill $server; rm -f "$number"' EXIT
tries=0
until [ -s "$number" ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || fail "Xvfb did not start"
    sleep 0.1
done
DISPLAY=":$(cat "$number")"
export DISPLAY
picture=${2:-$root/target/window/embedding.png}
"$window" --frames 200 --screenshot "$picture"
say "the last frame is in $picture"
