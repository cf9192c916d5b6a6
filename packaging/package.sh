#!/bin/sh
# Makes an archive and a Debian package of a built program: the program, a manual page for each command, completions for
# bash, zsh and fish, the licence, and (Debian) the systemd unit.
#
# Usage: packaging/package.sh PROGRAM OUT
# LEVEL is the level of compression, 1 to 9.
set -eu

program=$1
out=$2
level=${LEVEL:-6}
here=$(cd "$(dirname "$0")" && pwd)
version=$("$program" --version | cut -d ' ' -f 2)
machine=$(uname -m)
name=sotto-$version-$machine-linux

mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

tree=$work/$name
mkdir -p "$tree/bin" "$tree/share/man/man1" "$tree/share/bash-completion/completions" \
    "$tree/share/zsh/vendor-completions" "$tree/share/fish/vendor_completions.d" "$tree/share/doc/sotto"
install -m 755 "$program" "$tree/bin/sotto"
"$program" man --out "$tree/share/man/man1"
"$program" completions bash >"$tree/share/bash-completion/completions/sotto"
"$program" completions zsh >"$tree/share/zsh/vendor-completions/_sotto"
"$program" completions fish >"$tree/share/fish/vendor_completions.d/sotto.fish"
install -m 644 "$here/../LICENSE" "$tree/share/doc/sotto/copyright"
tar -C "$work" --owner=0 --group=0 -cf - "$name" | gzip -n "-$level" >"$out/$name.tar.gz"
echo "$out/$name.tar.gz"

if ! command -v dpkg-deb >/dev/null; then
    echo "no dpkg-deb here: no Debian package" >&2
    exit 0
fi
deb=$work/deb
mkdir -p "$deb/DEBIAN" "$deb/usr" "$deb/usr/lib/systemd/system"
cp -R "$tree/." "$deb/usr"
find "$deb/usr/share/man" -name '*.1' -exec gzip -9n {} +
sed 's|/usr/local/bin/sotto|/usr/bin/sotto|' "$here/systemd/sotto.service" >"$deb/usr/lib/systemd/system/sotto.service"
# What the program is linked with; nothing if it is static.
depends=
if libc=$(dpkg-query -W -f '${Version}' libc6 2>/dev/null) && ldd "$program" >/dev/null 2>&1 &&
    ! ldd "$program" 2>&1 | grep -q 'statically linked'; then
    depends="Depends: libc6 (>= ${libc%%-*}), libgcc-s1"
fi
{
    echo "Package: sotto"
    echo "Version: $version"
    echo "Architecture: $(dpkg --print-architecture)"
    echo "Maintainer: The sotto authors <sotto@localhost>"
    echo "Section: net"
    echo "Priority: optional"
    echo "Installed-Size: $(du -ks "$deb/usr" | cut -f 1)"
    [ -z "$depends" ] || echo "$depends"
    echo "Recommends: python3-pip"
    echo "Description: private chat with language models"
    echo " The linear layers of the model run on a server, encrypted; everything else runs"
    echo " here. Models that are known by name are fetched through pip."
} >"$deb/DEBIAN/control"
package=$out/sotto_${version}_$(dpkg --print-architecture).deb
# gzip takes a tenth of the time that xz does.
dpkg-deb -Zgzip "-z$level" --build --root-owner-group "$deb" "$package" >/dev/null
echo "$package"
