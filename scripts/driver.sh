#!/bin/sh
# Makes sure that there is a Vulkan driver: finds one, or installs Mesa's software driver where it may, or says what to do.
# Run it by itself, or source it and call `ensure_driver` and `ensure_cargo`. Nothing is installed without a line saying so.

say() { printf '%s\n' "shadegrad: $*"; }
fail() {
    printf '%s\n' "shadegrad: $*" >&2
    exit 1
}

ensure_cargo() {
    # rustup's usual folder, for shells that have not read its profile.
    if ! command -v cargo >/dev/null 2>&1 && [ -x "${HOME:-/}/.cargo/bin/cargo" ]; then
        PATH=$HOME/.cargo/bin:$PATH
        export PATH
    fi
    command -v cargo >/dev/null 2>&1 ||
        fail "cargo is not installed. Install Rust from https://rustup.rs (on Unix: curl https://sh.rustup.rs -sSf | sh), open a new shell and run this again."
}

# The files in a list separated by colons, or in the folders named there: succeeds if there is at least one.
any_listed() {
    old_ifs=$IFS
    IFS=:
    for entry in $1; do
        if [ -f "$entry" ] || { [ -d "$entry" ] && ls "$entry"/*.json >/dev/null 2>&1; }; then
            IFS=$old_ifs
            return 0
        fi
    done
    IFS=$old_ifs
    return 1
}

# Succeeds if the Vulkan loader would find the description of a driver.
driver_found() {
    home=${HOME:-/}
    any_listed "${VK_ADD_DRIVER_FILES:-}:/etc/vulkan/icd.d:/usr/share/vulkan/icd.d:/usr/local/etc/vulkan/icd.d:/usr/local/share/vulkan/icd.d:/run/opengl-driver/share/vulkan/icd.d:${XDG_DATA_HOME:-$home/.local/share}/vulkan/icd.d"
}

# Succeeds if the Vulkan loader itself is there.
loader_found() {
    if command -v ldconfig >/dev/null 2>&1; then
        ldconfig -p 2>/dev/null | grep -q 'libvulkan\.so' && return 0
    elif [ -x /sbin/ldconfig ]; then
        /sbin/ldconfig -p 2>/dev/null | grep -q 'libvulkan\.so' && return 0
    fi
    for dir in /usr/lib /usr/lib64 /usr/local/lib /usr/lib/x86_64-linux-gnu /usr/lib/aarch64-linux-gnu /run/opengl-driver/lib; do
        for lib in "$dir"/libvulkan.so*; do
            [ -e "$lib" ] && return 0
        done
    done
    return 1
}

ensure_driver() {
    case $(uname -s) in
        Linux)
            # Mesa's layer that reorders devices asks the desktop and complains where there is none; shadegrad ranks
            # devices itself.
            : "${NODEVICE_SELECT:=1}"
            export NODEVICE_SELECT
            ;;
        # Metal and DX12 come with the system.
        *) return 0 ;;
    esac
    listed=${VK_DRIVER_FILES:-${VK_ICD_FILENAMES:-}}
    if [ -n "$listed" ]; then
        # The Vulkan loader then looks nowhere else, so that installing a driver would not help.
        any_listed "$listed" ||
            fail "VK_DRIVER_FILES or VK_ICD_FILENAMES names '$listed', which does not exist. Unset it and run this again."
        loader_found && return 0
    elif loader_found && driver_found; then
        return 0
    fi
    if ! command -v apt-get >/dev/null 2>&1; then
        say "no Vulkan driver was found. Install your GPU's driver, or Mesa's software driver, which runs on any processor:" >&2
        if command -v dnf >/dev/null 2>&1; then
            fail "sudo dnf install mesa-vulkan-drivers"
        elif command -v pacman >/dev/null 2>&1; then
            fail "sudo pacman -S vulkan-swrast"
        elif command -v apk >/dev/null 2>&1; then
            fail "sudo apk add mesa-vulkan-swrast vulkan-loader"
        elif command -v zypper >/dev/null 2>&1; then
            fail "sudo zypper install libvulkan_lvp vulkan-tools"
        fi
        fail "it is the package of your distribution with Mesa's 'lavapipe' driver."
    fi
    if [ "$(id -u)" = 0 ]; then
        as_root=
    elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        as_root=sudo
    else
        say "no Vulkan driver was found. If this machine has a GPU, install its driver; else Mesa's software driver, which runs on any processor:" >&2
        fail "sudo apt-get update && sudo apt-get install -y mesa-vulkan-drivers libvulkan1"
    fi
    say "no Vulkan driver was found: installing Mesa's (packages mesa-vulkan-drivers and libvulkan1, with a software driver that runs on any processor)."
    $as_root apt-get update &&
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends mesa-vulkan-drivers libvulkan1 ||
        fail "the installation failed; the reason stands above. Without network access, install the package mesa-vulkan-drivers by other means."
    driver_found || fail "mesa-vulkan-drivers is installed but brought no Vulkan driver; install your GPU's driver."
    say "the driver is installed."
}

case $0 in
    */driver.sh | driver.sh) ensure_driver && say "a Vulkan driver is there." ;;
esac
