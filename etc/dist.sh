#!/bin/sh
# usage: make dist
#
# Makes rfw-VERSION.tar.gz, which builds without a network, and from it
# rfw-VERSION-linux-MACHINE.tar.gz with a program that needs no library.  Both list in
# crates.txt what rfw is built of.  The same tree and tools give the same bytes, wherever
# and whenever this runs.
set -eu
umask 022
export LC_ALL=C

cd -- "$(dirname -- "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
source=rfw-$version
mkdir -p "$TARGET_DIR/dist"
out=$(cd -- "$TARGET_DIR/dist" && pwd -P)
work=$out/work

trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
rm -rf "$work" "$out/$source"[.-]* "$out/rfw_$version"-*
mkdir "$work"

fail() {
    printf 'dist.sh: %s\n' "$1" >&2
    exit 1
}

# All that is of this tree: in a clone what git knows, or would be told by "git add";
# in an unpacked tarball all but what was added when it was made, or is built.
list_files() {
    if [ -e .git ]; then
        git ls-files -z --cached --others --exclude-standard
    else
        find . \( -path ./target -o -path ./vendor -o -path ./.cargo -o -path ./crates.txt \) \
            -prune -o -type f -print0
    fi
}

# Every file gets the time of the last commit, which a tarball hands on.
if [ -z "${SOURCE_DATE_EPOCH-}" ]; then
    if [ -e .git ]; then
        SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
        [ -z "$(git status --porcelain)" ] ||
            echo 'dist.sh: note: this has changes that are not committed' >&2
    else
        SOURCE_DATE_EPOCH=$(stat -c %Y Cargo.toml)
    fi
fi
export SOURCE_DATE_EPOCH

# pack NAME: makes the folder $work/NAME a tarball.
pack() {
    tar -C "$work" --sort=name --format=gnu --mtime="@$SOURCE_DATE_EPOCH" \
        --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
        -cf "$work/$1.tar" "$1"
    gzip -nc "$work/$1.tar" >"$out/$1.tar.gz"
    (cd "$out" && sha256sum "$1.tar.gz" >"$1.tar.gz.sha256")
}

# ---- the sources ----

mkdir "$work/$source"
# What git knows may have been deleted here, and is left out then.
list_files | tar --null -T - --ignore-failed-read -cf "$work/files.tar"
tar -C "$work/$source" -xf "$work/files.tar"

# cargo brings the crates of all systems, but asks only for a manifest of those that
# it does not compile.  The ones for Windows are most of it all.
empty_windows_crates() {
    for crate in "$work/$source"/vendor/windows*; do
        package=$(sed -n 's/.*\("package":"[0-9a-f]*"\).*/\1/p' "$crate/.cargo-checksum.json")
        [ -n "$package" ] || fail "no checksum in $crate"
        find "$crate" -type f ! -name Cargo.toml ! -iname 'licen[cs]e*' -delete
        mkdir -p "$crate/src"
        echo '// Left empty: rfw runs on Linux only.' >"$crate/src/lib.rs"
        printf '{"files":{},%s}' "$package" >"$crate/.cargo-checksum.json"
        find "$crate" -type d -empty -delete
    done
}

if [ ! -e .git ] && [ -d vendor ]; then
    cp -R vendor "$work/$source/vendor"
else
    (cd "$work/$source" && cargo vendor --quiet --locked --versioned-dirs vendor >/dev/null)
    empty_windows_crates
fi
mkdir -p "$work/$source/.cargo"
cat >"$work/$source/.cargo/config.toml" <<'END'
# The crates are in this folder, so cargo needs no network.
[source.crates-io]
replace-with = "vendored"

[source.vendored]
directory = "vendor"
END
"$work/$source/etc/crates.sh" list >"$work/crates.txt"
mv "$work/crates.txt" "$work/$source/"
pack "$source"

# ---- the program, from nothing but that tarball ----

rm -r "${work:?}/$source"
tar -C "$work" -xf "$out/$source.tar.gz"
cd "$work/$source"
machine=$(rustc -vV | sed -n 's/^host: //p')
commit=$(rustc -vV | sed -n 's/^commit-hash: //p')
binary=$source-linux-${machine%%-*}

# Whether a program that panics says so and is aborted (SIGABRT).
ends_in_panic() (
    # shellcheck disable=SC3045  # dash and bash know it
    ulimit -c 0
    status=0
    said=$(RUST_BACKTRACE=1 "$1" 2>&1) || status=$?
    [ "$status" = 134 ] && case $said in *panicked*probe*) true ;; *) false ;; esac
)

# The flags hold for the program, not for what runs while it is built, because the
# target is named.  No path of this machine may be in the program: not that of this
# folder, and not that of Rust's own library.
unit=$(printf '\037')
CARGO_ENCODED_RUSTFLAGS="-Ctarget-feature=+crt-static$unit--remap-path-prefix=$work=/rfw"
CARGO_ENCODED_RUSTFLAGS="$CARGO_ENCODED_RUSTFLAGS$unit--remap-path-prefix=$(rustc --print sysroot)/lib/rustlib/src/rust=/rustc/$commit"
# What makes the program smaller where compiler, linker and C library know it: fewer functions
# that are copied into others, relocations of a bit each and not of 24 bytes (glibc 2.36), one
# copy of functions that are the same (lld), and no tables for unwinding.  A panic has to end
# as before.  The path is relative, since flags count for the names in the program.
echo 'fn main() { panic!("probe") }' >"$work/probe.rs"
lacking=''
for flag in -Cllvm-args=-inlinehint-threshold=85 -Cllvm-args=-inline-threshold=22 \
    -Clink-arg=-Wl,-z,pack-relative-relocs -Clink-arg=-Wl,--icf=all \
    -Clink-arg=-Wl,-T,etc/no-unwinding.ld; do
    if rustc --target "$machine" -Ctarget-feature=+crt-static -Cpanic=abort "$flag" \
        -o "$work/probe" "$work/probe.rs" 2>/dev/null && ends_in_panic "$work/probe" 2>/dev/null; then
        CARGO_ENCODED_RUSTFLAGS="$CARGO_ENCODED_RUSTFLAGS$unit$flag"
    else
        lacking="$lacking $flag"
    fi
done
rm -f "$work/probe" "$work/probe.rs"
export CARGO_ENCODED_RUSTFLAGS
export CFLAGS="-ffile-prefix-map=$work=/rfw"
CARGO_TARGET_DIR=$work/target cargo build --release --locked --offline --target "$machine"
mkdir "$work/$binary"
cp "$work/target/$machine/release/rfw" "$work/$binary/rfw"
if readelf -ldW "$work/$binary/rfw" | grep -E 'INTERP|NEEDED' >&2; then
    fail 'the program is not static'
fi

# A bound for the profile of Cargo.toml, and a toolchain that knows all flags.
bytes=$(stat -c %s "$work/$binary/rfw")
if [ "$bytes" -gt 4000000 ] && ! env | grep -q '^CARGO_PROFILE_RELEASE_'; then
    [ -n "$lacking" ] || fail "the program has $bytes bytes, and 4,000,000 are the most"
    echo "dist.sh: note: the program has $bytes bytes, since this toolchain lacks$lacking" >&2
fi

# The licences of what is in the program: each crate's own, and a list of all.
licences=$work/$binary/licences
mkdir "$licences"
{
    echo 'rfw is made of these crates, of the standard library of Rust (MIT OR Apache-2.0)'
    echo 'and of the C library of the system that it was made on. Their source, and all'
    echo "that is needed to make rfw anew with another C library, is in $source.tar.gz."
    echo
    cargo tree --locked --offline --target "$machine" --edges normal,no-proc-macro \
        --prefix none --no-dedupe --format '{p}: {l}' | sed 's/ (.*):/:/' | sort -u |
        grep -v '^rfw '
} >"$licences/README"
sed -n 's/^\([^ ]*\) v\([^ ]*\): .*/\1-\2/p' "$licences/README" | while read -r crate; do
    mkdir "$licences/$crate"
    find "vendor/$crate" -maxdepth 1 -type f \( -iname 'licen[cs]e*' -o -iname 'copying*' \
        -o -iname 'notice*' -o -iname 'unlicense*' \) -exec cp {} "$licences/$crate/" \;
done
find "$licences" -type d -empty | grep . >&2 && fail 'no licence in these'

cp -R Makefile LICENSE README.md crates.txt etc "$work/$binary/"
for name in dist.sh no-unwinding.ld crates.sh sign.sh; do
    rm "$work/$binary/etc/$name"
done
pack "$binary"

cd "$out"
ls -1s --block-size=K "$out/$source"[.-]*
