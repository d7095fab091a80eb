#!/bin/sh
# Opens the window of examples/window, in which a network trains live. With `check` it runs under a virtual display (Xvfb),
# paints points and fails unless steps and clicks are seen in their frames; the last frame goes to the file named after it.
# It ends with 77 where there is no such display and none can be installed.
# `measure` does the same and lets the times between frames decide, too: on a machine without other work.
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
window="$CARGO_TARGET_DIR/debug/shadegrad-window"
build() { cargo build --manifest-path examples/window/Cargo.toml; }
case ${1:-} in
    check) times= ;;
    measure) times=--times ;;
    *)
        build
        exec "$window"
        ;;
esac

# The display and the libraries that winit opens at run time.
display_found() {
    command -v Xvfb >/dev/null 2>&1 || return 1
    for lib in libX11-xcb libXcursor libXi libXrandr libxkbcommon-x11; do
        PATH=$PATH:/sbin ldconfig -p | grep -q "$lib\.so" || return 1
    done
}
if ! display_found && command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    say "installing Xvfb and the libraries that windows need"
    apt-get update || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        xvfb libx11-6 libx11-xcb1 libxcursor1 libxi6 libxrandr2 libxkbcommon-x11-0 || true
fi
if ! display_found; then
    say "the check needs Xvfb: sudo apt-get install xvfb libx11-xcb1 libxcursor1 libxi6 libxrandr2 libxkbcommon-x11-0"
    exit 77
fi
build
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
# shellcheck disable=SC2086 # Nothing or one word.
"$window" --frames 200 $times --screenshot "$picture"
say "the last frame is in $picture"
