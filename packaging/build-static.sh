#!/bin/sh
# Builds a program that needs no shared library, and packages it (see package.sh).
#
# Usage: packaging/build-static.sh [OUT]
#
# With the musl target of Rust and musl-gcc (rustup target add x86_64-unknown-linux-musl; apt install musl-tools) the program
# runs on any Linux. Without, glibc is linked in; then names of hosts are looked up with the glibc of the machine it runs on,
# which must be of the same version, so `sotto chat --server` should be given an IP address elsewhere.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.."
out=${1:-target/packages}
machine=$(uname -m)
target=$machine-unknown-linux-musl
if [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ] && command -v musl-gcc >/dev/null; then
    export CC_x86_64_unknown_linux_musl=musl-gcc
else
    target=$machine-unknown-linux-gnu
    export RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static"
fi
cargo build --release --locked --features hub --package sotto --bin sotto --target "$target"
program=${CARGO_TARGET_DIR:-target}/$target/release/sotto
if ldd "$program" 2>&1 | grep -q '=>'; then
    echo "$program is not static:" >&2
    ldd "$program" >&2
    exit 1
fi
"$here/package.sh" "$program" "$out"
