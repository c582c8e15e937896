#!/bin/sh
# usage: make release-key | make sign
#
# Makes the key that signs releases, or signs with it what "make dist" and "make deb" have
# made: beside each archive comes ARCHIVE.sig, and for those who verify allowed_signers,
# which names the key (ssh-keygen(1), ALLOWED SIGNERS).
set -eu
umask 022

fail() {
    printf 'sign.sh: %s\n' "$1" >&2
    exit 1
}

: "${RELEASE_KEY:?}" "${TARGET_DIR:?}"
cd -- "$(dirname -- "$0")/.."
command -v ssh-keygen >/dev/null || fail 'ssh-keygen is missing: apt-get install openssh-client'
key=$(realpath -m -- "$RELEASE_KEY")
case $key in "$(pwd -P)"/*) fail "the key may not be in this tree: $key" ;; esac

# Of whom, and for what, a signature is: who verifies names both.
signer=rfw
purpose=rfw-release

# ssh-keygen asks for a passphrase, where there is a terminal.
make_key() {
    if [ -e "$key" ]; then
        echo "there is a key already: $key"
        return
    fi
    (umask 077 && mkdir -p -- "$(dirname -- "$key")")
    ssh-keygen -q -t ed25519 -C "$purpose" -f "$key"
    echo "the key is $key: keep a copy of it away from servers"
}

sign() {
    if [ ! -e "$key" ] || [ ! -e "$key.pub" ]; then
        fail "there is no key $key with its public half $key.pub: make release-key"
    fi
    version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
    cd -- "$TARGET_DIR/dist" 2>/dev/null || fail 'there is nothing to sign: make dist'
    set --
    for archive in "rfw-$version.tar.gz" "rfw-$version"-linux-*.tar.gz "rfw_$version"-*.deb; do
        [ ! -e "$archive" ] || set -- "$@" "$archive"
    done
    [ $# -gt 0 ] || fail 'there is nothing to sign: make dist'
    rm -f "rfw-$version"*.sig "rfw_$version"-*.sig
    ssh-keygen -q -Y sign -f "$key" -n "$purpose" "$@"
    printf '%s namespaces="%s" %s\n' "$signer" "$purpose" "$(cut -d ' ' -f 1,2 "$key.pub")" \
        >allowed_signers
    for archive; do
        ssh-keygen -Y verify -f allowed_signers -I "$signer" -n "$purpose" \
            -s "$archive.sig" <"$archive"
    done
}

case ${1-} in
    key) make_key ;;
    sign) sign ;;
    *) fail 'usage: make release-key | make sign' ;;
esac
