#!/bin/sh
# usage: make install | make uninstall
#
# Puts rfw where the variables of the Makefile say, or takes it away again.  Needs no
# root where DESTDIR is set, and nothing of Rust.
set -eu
umask 022

fail() {
    printf 'install.sh: %s\n' "$1" >&2
    exit 1
}

: "${SYSCONFDIR:?}" "${bindir:?}" "${sbindir:?}" "${datadir:?}" "${mandir:?}" "${docdir:?}" "${unitdir:?}"
: "${BINARY:?}"
DESTDIR=${DESTDIR-}
DESTDIR=${DESTDIR%/}
cd -- "$(dirname -- "$0")/.."
conf_dir=$SYSCONFDIR/rfw
share_dir=$datadir/rfw
# Where bash and zsh look for the completion of a command.
bash_dir=$datadir/bash-completion/completions
zsh_dir=$datadir/zsh/site-functions
# What came with the last installation: an example, and what the next one compares with.
examples=$docdir/examples
logrotate=$SYSCONFDIR/logrotate.d/rfw
new_logrotate=$conf_dir/logrotate.new

# These are written into other files and into commands to type, so they may have
# nothing that is special there.  DESTDIR may.
for path in "$SYSCONFDIR" "$sbindir" "$bindir" "$datadir" "$mandir" "$docdir" "$unitdir"; do
    case $path in
        *[!A-Za-z0-9/._+-]*) fail "only A-Z a-z 0-9 / . _ + - may be in '$path'" ;;
        /*) ;;
        *) fail "not an absolute path: '$path'" ;;
    esac
done

# rfw looks for its configuration in /etc unless it is told otherwise.
rfw=$sbindir/rfw
[ "$SYSCONFDIR" = /etc ] || rfw="$rfw -f $conf_dir/rfw.conf"

# ---- install ----

# folder MODE FOLDER: one that is there keeps its mode.
folder() {
    [ -d "$DESTDIR$2" ] || { mkdir -p "$DESTDIR$2" && chmod "$1" "$DESTDIR$2"; }
}

# put MODE FILE TARGET: makes the file beside its place and then moves it there, so
# that a program that runs is not disturbed and none is ever half there.
put() {
    beside=$DESTDIR$3.$$
    cp "$2" "$beside"
    chmod "$1" "$beside"
    mv -f "$beside" "$DESTDIR$3"
    printf 'installed  %s\n' "$DESTDIR$3"
}

# keep MODE FILE TARGET NEW: like put, but what is at TARGET stays.  If that is something
# else than the file, then the file becomes NEW; but not where the last installation
# came with the same, since there is nothing new in it.
keep() {
    example=$examples/${2##*/}
    if cmp -s "$2" "$DESTDIR$3" 2>/dev/null; then
        rm -f "$DESTDIR$4"
        printf 'unchanged  %s\n' "$DESTDIR$3"
    elif [ ! -e "$DESTDIR$3" ] && [ ! -L "$DESTDIR$3" ]; then
        put "$1" "$2" "$3"
    elif cmp -s "$2" "$DESTDIR$example" 2>/dev/null; then
        printf 'kept       %s\n' "$DESTDIR$3"
    else
        put "$1" "$2" "$4"
        printf 'kept       %s: see what is new in %s\n' "$DESTDIR$3" "$DESTDIR$4"
    fi
    put 644 "$2" "$example"
}

# fill FILE: gives a copy with this installation's paths.
fill() {
    copy=$work/${1##*/}
    sed -e "s|@sbindir@|$sbindir|g" -e "s|@sysconfdir@|$SYSCONFDIR|g" \
        -e "s|/etc/rfw|$conf_dir|g" "$1" >"$copy"
}

# The documents, with links to each other as they lie here.
install_documents() {
    folder 755 "$docdir"
    put 644 LICENSE "$docdir/LICENSE"
    put 644 etc/openapi.yaml "$docdir/openapi.yaml"
    # What rfw is built of: an archive has it.
    [ ! -e crates.txt ] || put 644 crates.txt "$docdir/crates.txt"
    for picture in etc/doc/*.png; do
        put 644 "$picture" "$docdir/${picture##*/}"
    done
    for page in README.md etc/doc/*.md; do
        copy=$work/${page##*/}
        sed -e 's|](etc/doc/|](|g' -e 's|](etc/openapi|](openapi|g' -e 's|](\.\./\.\./README\.md|](README.md|g' \
            -e "s|](etc/deploy/|]($conf_dir/deploy/|g" \
            -e "s|](\.\./deploy/|]($conf_dir/deploy/|g" "$page" >"$copy"
        put 644 "$copy" "$docdir/${page##*/}"
    done
}

install_rfw() {
    [ -x "$BINARY" ] || fail "there is no program '$BINARY'"
    work=$(mktemp -d)
    beside=$work/none
    trap 'rm -rf "$work" "$beside"' EXIT
    trap 'exit 1' HUP INT TERM

    folder 755 "$sbindir"
    put 755 "$BINARY" "$sbindir/rfw"
    folder 755 "$bindir"
    fill etc/rfwctl/rfwctl
    put 755 "$copy" "$bindir/rfwctl"
    folder 755 "$bash_dir"
    put 644 etc/rfwctl/completion/rfwctl "$bash_dir/rfwctl"
    folder 755 "$zsh_dir"
    put 644 etc/rfwctl/completion/_rfwctl "$zsh_dir/_rfwctl"
    for page in rfw.8 rfw.conf.5 rfwgen.1 rfwctl.1; do
        folder 755 "$mandir/man${page##*.}"
        put 644 "etc/man/$page" "$mandir/man${page##*.}/$page"
    done
    install_documents
    folder 755 "$unitdir"
    for unit in rfw.service rfw-restore.service; do
        fill "etc/systemd/$unit"
        put 644 "$copy" "$unitdir/$unit"
    done
    # Not into fail2ban's own folder, which may not be there yet.
    folder 755 "$share_dir/fail2ban/action.d"
    put 644 etc/fail2ban/action.d/rfw.conf "$share_dir/fail2ban/action.d/rfw.conf"
    folder 755 "$share_dir/monitoring"
    for file in prometheus.yml rfw.rules.yml grafana.json; do
        put 644 "etc/monitoring/$file" "$share_dir/monitoring/$file"
    done

    folder 755 "$conf_dir"
    folder 700 "$conf_dir/ssl"
    folder 755 "$conf_dir/deploy"
    put 755 etc/deploy/rfwgen "$conf_dir/deploy/rfwgen"
    put 644 etc/deploy/README.md "$conf_dir/deploy/README.md"
    folder 755 "$examples"
    fill etc/rfwctl/servers
    put 644 "$copy" "$examples/servers"
    fill etc/rfw.conf
    keep 600 "$copy" "$conf_dir/rfw.conf" "$conf_dir/rfw.conf.new"
    fill etc/white.list
    keep 644 "$copy" "$conf_dir/white.list" "$conf_dir/white.list.new"
    # In logrotate's folder a file of any other name would be read too.
    folder 755 "$SYSCONFDIR/logrotate.d"
    cp etc/logrotate/rfw "$work/logrotate"
    keep 644 "$work/logrotate" "$logrotate" "$new_logrotate"

    cat <<END

rfw is installed. What to do next:

1. Make the keys on your own computer, in a copy of $conf_dir/deploy
   (made here, the key of the CA would lie on a server), and copy this server's
   two files to $conf_dir/ssl:
     ./rfwgen ADDRESS
2. Fill in user name and password, and the addresses that are never to be
   blocked; then have it checked:
     \${EDITOR:-vi} $conf_dir/rfw.conf $conf_dir/white.list
     $rfw --check
END
    if [ -n "$DESTDIR" ] || command -v systemctl >/dev/null; then
        cat <<END
3. Start it, now and at each boot (after an upgrade: systemctl restart rfw):
     systemctl daemon-reload
     systemctl enable --now rfw
   Its log is in the journal: journalctl -u rfw
END
        # An older unit has logged to this file.
        [ ! -e "$DESTDIR/var/log/rfw.log" ] || printf '   %s\n' \
            "$DESTDIR/var/log/rfw.log has what was logged before: the unit says how to go on with it"
    else
        cat <<END
3. Start it, and have that done at each boot; there is no systemd here, and rfw
   stays in the foreground:
     $rfw
END
    fi
}

# ---- uninstall ----

# What runs has to be stopped, and its rules removed, while it is still there.
refuse_while_in_use() {
    if systemctl --quiet is-active rfw 2>/dev/null ||
        systemctl --quiet is-enabled rfw 2>/dev/null; then
        fail "rfw.service is running or enabled. Stop it and remove its rules first:
  systemctl disable --now rfw
  $rfw --flush
and then run make uninstall again."
    fi
}

remove() {
    [ -e "$DESTDIR$1" ] || return 0
    rm -f "$DESTDIR$1"
    printf 'removed    %s\n' "$DESTDIR$1"
}

# A folder that has something else in it stays.
remove_empty() {
    for name in "$@"; do
        rmdir "$DESTDIR$name" 2>/dev/null || :
    done
}

uninstall_rfw() {
    [ -n "$DESTDIR" ] || refuse_while_in_use
    for file in "$sbindir/rfw" "$bindir/rfwctl" "$bash_dir/rfwctl" "$zsh_dir/_rfwctl" \
        "$mandir/man8/rfw.8" "$mandir/man5/rfw.conf.5" "$mandir/man1/rfwgen.1" "$mandir/man1/rfwctl.1" "$unitdir/rfw.service" "$unitdir/rfw-restore.service" \
        "$share_dir/fail2ban/action.d/rfw.conf" \
        "$share_dir/monitoring/prometheus.yml" "$share_dir/monitoring/rfw.rules.yml" "$share_dir/monitoring/grafana.json" \
        "$docdir/LICENSE" "$docdir/openapi.yaml" "$docdir/README.md" "$docdir/crates.txt" \
        "$examples/rfw.conf" "$examples/white.list" "$examples/logrotate" "$examples/servers" \
        "$conf_dir/deploy/rfwgen" "$conf_dir/deploy/README.md" \
        "$conf_dir/rfw.conf.new" "$conf_dir/white.list.new" "$logrotate" "$new_logrotate"; do
        remove "$file"
    done
    for page in etc/doc/*.md etc/doc/*.png; do
        remove "$docdir/${page##*/}"
    done
    remove_empty "$share_dir/fail2ban/action.d" "$share_dir/fail2ban" "$share_dir/monitoring" "$share_dir" \
        "$examples" "$docdir" "$conf_dir/deploy"

    # The program that was installed is gone, but there is one here, or can be.
    here=$(pwd)/$BINARY
    case $BINARY in /*) here=$BINARY ;; esac
    rfw="$here${rfw#"$sbindir/rfw"}"
    [ -x "$BINARY" ] || rfw="make -C $(pwd) && $rfw"
    cat <<END

rfw is uninstalled. What is left:

- Rules in the kernel, until it boots, unless they were removed before. This
  removes them:
     $rfw --flush
- The configuration, the keys, the log, and what is to come back at a boot. If you
  want them no more:
     rm -r $conf_dir
     rm -r /var/lib/rfw
     rm -f /var/log/rfw.log*
- What systemd knows of the unit, until
     systemctl daemon-reload
END
}

case ${1-} in
    install) install_rfw ;;
    uninstall) uninstall_rfw ;;
    *) fail 'usage: make install | make uninstall' ;;
esac
