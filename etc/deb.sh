#!/bin/sh
# usage: make deb
#
# Makes rfw_VERSION-1_ARCHITECTURE.deb, with what "make install" puts into a system, and
# the scripts of etc/debian.  Needs dpkg-deb and nothing of Rust.  The same program and
# tree give the same bytes, wherever and whenever this runs.
set -eu
umask 022
export LC_ALL=C

fail() {
    printf 'deb.sh: %s\n' "$1" >&2
    exit 1
}

: "${BINARY:?}" "${OUT:?}"
# As tools of Debian have it.
maintainer="${DEBFULLNAME:-The rfw authors} <${DEBEMAIL:-rfw@localhost}>"
cd -- "$(dirname -- "$0")/.."
command -v dpkg-deb >/dev/null || fail 'dpkg-deb is missing: apt-get install dpkg'
case $BINARY in /*) ;; *) BINARY=$(pwd)/$BINARY ;; esac
[ -x "$BINARY" ] || fail "there is no program '$BINARY'"
version=$("$BINARY" --version | sed -n 's/^rfw //p')
[ -n "$version" ] || fail "'$BINARY' tells no version"

# The machine that the program is for, in the two bytes that ELF has for it (elf(5), e_machine).
case $(od -An -j 18 -N 2 -tx1 "$BINARY" | tr -d ' ') in
    3e00) architecture=amd64 ;;
    b700) architecture=arm64 ;;
    f300) architecture=riscv64 ;;
    *) fail "'$BINARY' is for a machine that Debian has no name for here" ;;
esac

# Every file gets the time of the last commit, or the one that an archive has handed on.
if [ -z "${SOURCE_DATE_EPOCH-}" ]; then
    if [ -e .git ]; then
        SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
    else
        SOURCE_DATE_EPOCH=$(stat -c %Y Makefile)
    fi
fi
export SOURCE_DATE_EPOCH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
chmod 755 "$work"
root=$work/root
doc=$root/usr/share/doc/rfw

# ---- what it puts into a system ----

DESTDIR=$root SYSCONFDIR=/etc bindir=/usr/bin sbindir=/usr/sbin datadir=/usr/share \
    mandir=/usr/share/man docdir=/usr/share/doc/rfw unitdir=/lib/systemd/system \
    etc/install.sh install >"$work/said" || fail "$(cat "$work/said")"

# A package of Debian brings the action of fail2ban to where it is used.
mkdir -p "$root/etc/fail2ban"
mv "$root/usr/share/rfw/fail2ban/action.d" "$root/etc/fail2ban/action.d"
rmdir "$root/usr/share/rfw/fail2ban"
rmdir "$root/usr/share/rfw" 2>/dev/null || :
# Where zsh of Debian looks for the completions of packages.
mv "$root/usr/share/zsh/site-functions" "$root/usr/share/zsh/vendor-completions"
# dpkg keeps the files of /etc, and asks where both they and the shipped ones have changed.
rm "$doc/examples/rfw.conf" "$doc/examples/white.list" "$doc/examples/logrotate"

# Licences: of rfw, and, in an archive, of the crates that are in the program.
{
    cat <<END
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Comment: The licences of the crates that the program is made of are in
 /usr/share/doc/rfw/licences, where it is a program without libraries.

Files: *
END
    sed -n 's/^Copyright (c) /Copyright: /p' LICENSE
    echo 'License: Expat'
    sed -n '/^Permission/,$ { s/^$/./; s/^/ /; p; }' LICENSE
} >"$doc/copyright"
rm "$doc/LICENSE"
[ ! -d licences ] || cp -R licences "$doc/licences"

# Changes of rfw as it comes, and those of the package, which has none of its own.
cp etc/doc/changes.md "$doc/changelog"
cat >"$doc/changelog.Debian" <<END
rfw ($version-1) stable; urgency=medium

  * What is new is told in changelog.gz and changes.md.

 -- $maintainer  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
END
find "$root/usr/share/man" -type f -exec gzip -9n {} +
gzip -9n "$doc/changelog" "$doc/changelog.Debian"

mkdir -p "$root/usr/share/lintian/overrides"
cp etc/debian/lintian-overrides "$root/usr/share/lintian/overrides/rfw"

# ---- what dpkg is told ----

mkdir "$root/DEBIAN"
for script in postinst prerm postrm; do
    cp "etc/debian/$script" "$root/DEBIAN/$script"
    chmod 755 "$root/DEBIAN/$script"
done
(cd "$root" && find etc -type f | sort | sed 's|^|/|') >"$root/DEBIAN/conffiles"
(cd "$root" && find lib usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
# In KiB, each file and folder rounded up, whatever the file system here does.
size=$(find "$root" -path "$root/DEBIAN" -prune -o -type f -printf '%s\n' -o -printf '1\n' |
    awk '{ size += int(($1 + 1023) / 1024) } END { print size }')
sed -e "s|@version@|$version-1|" -e "s|@architecture@|$architecture|" \
    -e "s|@maintainer@|$maintainer|" -e "s|@size@|$size|" etc/debian/control >"$root/DEBIAN/control"

# ---- the package ----

find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
mkdir -p "$OUT"
package=rfw_$version-1_$architecture.deb
# gzip gives the same bytes with each version of dpkg and any number of processors.
dpkg-deb -Zgzip --root-owner-group --build "$root" "$work/$package" >/dev/null
mv "$work/$package" "$OUT/$package"
(cd "$OUT" && sha256sum "$package" >"$package.sha256")
printf 'made       %s\n' "$OUT/$package"
