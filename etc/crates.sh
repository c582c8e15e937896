#!/bin/sh
# usage: etc/crates.sh list | check
#
# Lists the crates that rfw is built of on Linux: name, version, licence and source, with
# tabs between them.  Or checks them, and those of its tests, against the file .crates.
set -eu
export LC_ALL=C

cd -- "$(dirname -- "$0")/.."
tab=$(printf '\t')

fail() {
    printf 'crates.sh: %s\n' "$1" >&2
    exit 1
}

# read_crates EDGES: puts the crates but rfw into a file, by name, version and licence.
read_crates() {
    cargo tree --locked --quiet --edges "$1" --prefix none --no-dedupe \
        --format "{p}$tab{l}" >"$work/tree"
    sed -n "s/^\([^ ]*\) v\([^ $tab]*\)[^$tab]*/\1$tab\2/p" "$work/tree" |
        sed "/^rfw$tab/d" | sort -u >"$work/crates"
    [ -s "$work/crates" ] || fail 'cargo tree names no crate'
}

# read_sources FILE...: puts what such files of cargo lock into a file, by name, version
# and source.
read_sources() {
    awk -F '"' '
        function tell() { if (name != "") print name "\t" version "\t" source }
        /^\[\[package\]\]$/ { tell(); name = version = ""; source = "none" }
        /^name = / { name = $2 }
        /^version = / { version = $2 }
        /^source = / { source = $2 }
        END { tell() }
    ' "$@" >"$work/sources"
}

list() {
    read_sources Cargo.lock
    read_crates normal,build
    awk -F '\t' '
        NR == FNR { source[$1, $2] = $3; next }
        { print $0 "\t" source[$1, $2] }
    ' "$work/sources" "$work/crates"
}

check() {
    read_sources Cargo.lock tests/fuzz/Cargo.lock
    read_crates normal,build,dev
    awk -F '\t' '
        function refuse(line) { print "crates.sh: " line; status = 1 }

        # Whether 1s and 0s with & and | between them make a 1.
        function plain(text) {
            while (sub(/1&1/, "1", text) || sub(/[01]&[01]/, "0", text)) { }
            return text ~ /^[01](\|[01])*$/ && text ~ /1/
        }

        # Whether one may use what has this licence.
        function is_free(licence, words, count, at, text) {
            gsub(/\//, " OR ", licence)
            gsub(/ WITH /, "-WITH-", licence)
            gsub(/[()]/, " & ", licence)
            count = split(licence, words, " ")
            for (at = 1; at <= count; at++) {
                named[words[at]]
                if (words[at] == "AND") text = text "&"
                else if (words[at] == "OR") text = text "|"
                else if (words[at] ~ /[()]/) text = text words[at]
                else text = text ((("licence", words[at]) in allowed) ? 1 : 0)
            }
            while (match(text, /\([01&|]*\)/))
                text = substr(text, 1, RSTART - 1) plain(substr(text, RSTART + 1, RLENGTH - 2)) \
                    substr(text, RSTART + RLENGTH)
            return plain(text)
        }

        FILENAME == ".crates" {
            split($0, words, " ")
            if ($0 !~ /^(#|$)/) allowed[words[1], words[2]]
            next
        }
        FILENAME ~ /sources$/ {
            named[$3]
            is_own = $3 == "none" && $1 ~ /^rfw(-fuzz)?$/
            if (!is_own && !(("source", $3) in allowed))
                refuse($1 " " $2 " comes from elsewhere than .crates has it: " $3)
            next
        }
        {
            if (!is_free($3)) refuse($1 " " $2 " has a licence that .crates has not: \"" $3 "\"")
            versions[$1] = versions[$1] " " $2
            if (++count[$1] == 2) named[$1]
        }
        END {
            for (name in count)
                if (count[name] > 1 && !(("twice", name) in allowed))
                    refuse(name " is there more than once, and not in .crates:" versions[name])
            for (key in allowed) {
                split(key, words, SUBSEP)
                if (words[1] !~ /^(source|licence|twice)$/)
                    refuse(".crates: " words[1] " is none of source, licence, twice")
                else if (!(words[2] in named))
                    refuse(".crates: nothing needs the line " words[1] " " words[2])
            }
            exit status
        }
    ' .crates "$work/sources" "$work/crates" >"$work/refused" || {
        sort -u "$work/refused" >&2
        return 1
    }
    check_advisories
}

# What is known against crates is looked up where it is at hand; nothing is downloaded.
check_advisories() {
    database=${ADVISORY_DB:-${CARGO_HOME:-$HOME/.cargo}/advisory-db}
    if [ -d "$database" ] && cargo audit --version >/dev/null 2>&1; then
        cargo audit --no-fetch --stale --db "$database" --file Cargo.lock
    else
        echo "crates.sh: advisories are not checked, for want of cargo-audit or of $database"
    fi
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
case ${1-} in
    list) list ;;
    check) check ;;
    *) fail 'usage: etc/crates.sh list | check' ;;
esac
