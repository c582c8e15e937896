#!/bin/bash
# usage: tests/demo.sh RFW_BINARY [--plain]
#
# Shows what rfw is, as a play on this one machine.  Each host of the play is a
# network namespace with a firewall of its own.  The whole of it runs inside a
# further network and mount namespace, so the machine's own firewall, network
# and files are never touched, and all of it is gone when the play is over.
#
# --plain prints without colours, as is done anyway where no terminal is.
# Exit status: 0 all steps held, 1 one did not, 2 the command line is wrong.

# A command that fails unexpectedly ends the play (-E: in functions as well).
set -Eeuo pipefail

# What programs print is compared here, and sbin is not in every user's PATH.
export LC_ALL=C PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

usage() {
    echo 'usage: tests/demo.sh RFW_BINARY [--plain]' >&2
    exit 2
}

# cannot REASON: ends the run where the play could not even begin.
cannot() {
    printf 'demo.sh: %s\n' "$*" >&2
    exit 1
}

rfw=''
colours=yes
for argument in "$@"; do
    case $argument in
        --plain) colours=no ;;
        -*) usage ;;
        *) [ -z "$rfw" ] || usage; rfw=$argument ;;
    esac
done
[ -n "$rfw" ] || usage
if [ ! -f "$rfw" ] || [ ! -x "$rfw" ]; then
    cannot "$rfw is not a program: build rfw first (make)"
fi
rfw=$(realpath -- "$rfw")
script=$(realpath -- "$0")
tree=${script%/tests/*}
if [ $colours = yes ] && [ -t 1 ]; then
    bold=$'\e[1m' plain=$'\e[0m'
else
    bold='' plain=''
fi

# ---- away from the machine's own network ----

outside=${RFW_DEMO_OUTSIDE-}    # the network namespace of the caller
unset RFW_DEMO_OUTSIDE

# "exec", so that this process stays the one whose number the caller knows: a
# signal sent to it ends the play in good order.
if [ -z "$outside" ]; then
    for tool in unshare nsenter setpriv mount ip iptables ping curl openssl; do
        command -v $tool >/dev/null || cannot "$tool is missing: run make deps"
    done
    if [ "$(id -u)" = 0 ]; then
        flags=-nm
        needed='root must have CAP_SYS_ADMIN, which a container may lack'
    else
        flags=-rnm
        needed="user namespaces must be allowed (see the settings of sysctl:
user.max_user_namespaces, kernel.unprivileged_userns_clone,
kernel.apparmor_restrict_unprivileged_userns), or you must be root"
    fi
    words=$(unshare $flags true 2>&1) ||
        cannot "the demo needs namespaces of its own; $words.
For \"unshare $flags\", $needed."
    RFW_DEMO_OUTSIDE=$(readlink /proc/self/ns/net) exec unshare $flags "$script" "$@"
fi

# From here on the firewall is changed, so be sure that it is nobody's.  A new
# namespace is another one than the caller's, and has no address yet.
inside=$(readlink /proc/self/ns/net)
addresses=$(ip -o address)
if [ "$inside" = "$outside" ] || [ -n "$addresses" ]; then
    cannot 'this is not a network namespace of its own: nothing was touched'
fi

# ip-netns(8) and iptables keep files in /run.  The play lives there too: a file
# system in memory that ends with this process, even if it is killed.
mount -t tmpfs -o mode=755 tmpfs /run || cannot 'no tmpfs can be mounted on /run'
# What rfw keeps for a reboot is none of the machine's.
mount -t tmpfs -o mode=755 tmpfs /var/lib || cannot 'no tmpfs can be mounted on /var/lib'
if [ ! -x "$rfw" ] || [ ! -x "$script" ]; then
    cannot 'rfw and its folder must not be below /run: the demo has a /run of its own'
fi
stage=/run/rfw-demo

# ---- how the play is told ----

step='0 (preparing)'
count=0

scene() {
    count=$((count + 1))
    step="$count ($1)"
    printf '\n%s=== %s. %s ===%s\n\n' "$bold" "$count" "$1" "$plain"
}

# Prints the text that it reads.
say() {
    cat
}

# fail WHAT: ends the play, with all that the two servers have to say.
fail() {
    trap - ERR
    {
        printf '\nDEMO FAILED in step %s: %s\n' "$step" "$*"
        for log in "$stage"/*/rfw.log "$stage"/*/rfw.err; do
            [ -s "$log" ] || continue
            printf -- '--- %s:\n' "$log"
            cat "$log"
        done
    } >&2
    exit 1
}

# become HOST COMMAND...: this process becomes the command, running on a host and
# in the host's own folder.
become() {
    cd "$stage/$1"
    export HOME=$PWD    # no .curlrc of the caller may change what curl does
    exec nsenter --net="/run/netns/$1" "${@:2}"
}

# at HOST COMMAND...: runs a command on a host.
at() (
    become "$@"
)

# on HOST COMMAND: shows a command, runs it on that host and shows its answer.
# The answer is then in $answer, and the exit status in $status.
on() {
    printf '%s%s$ %s%s\n' "$bold" "$1" "$2" "$plain"
    status=0
    answer=$(at "$1" bash -c "$2" 2>&1) || status=$?
    [ -z "$answer" ] || printf '%s\n' "$answer"
    echo
}

# succeeded WHAT: the last command must have worked.
succeeded() {
    [ "$status" = 0 ] || fail "$* ended with status $status instead of 0"
}

# answered TEXT: the answer must have this in it.
answered() {
    case $answer in
        *"$1"*) ;;
        *) fail "the answer should say $1" ;;
    esac
}

passes() {
    on "$1" "ping -q -c 1 -W 1 $2"
    succeeded "the ping from $1 to $2"
}

is_blocked() {
    on "$1" "ping -q -c 1 -W 1 $2"
    [ "$status" = 1 ] || fail "the ping from $1 to $2 should get no answer (status $status)"
}

# ---- the hosts ----

toronto=11.11.11.11 berlin=22.22.22.22
reputation=33.33.33.33 laptop=44.44.44.44
attacker=66.66.66.66 stranger=77.77.77.77

# Each host has a cable (a veth pair) to one switch (a bridge in this namespace)
# and finds every address there.
connect() {
    ip netns add "$1"
    mkdir -p "$stage/$1"
    ip link add "$1" type veth peer name eth0 netns "$1" || fail 'the kernel has no veth interfaces'
    ip link set "$1" master internet up
    at "$1" ip link set lo up
    at "$1" ip address add "$2/32" dev eth0
    at "$1" ip link set eth0 up
    at "$1" ip route add default dev eth0
}

running=()      # the process numbers of rfw

# start HOST: starts rfw there, and waits until it serves.
start() {
    # Should this script be killed, then rfw is killed as well (--pdeathsig).
    become "$1" setpriv --pdeathsig KILL \
        "$rfw" -f rfw.conf --logfile rfw.log </dev/null >"$stage/$1/rfw.err" 2>&1 &
    running+=("$!")
    for _ in {1..100}; do
        ! grep -qs 'is ready' "$stage/$1/rfw.log" || return 0
        kill -0 "$!" 2>/dev/null || fail "rfw on $1 has ended instead of serving"
        sleep 0.1
    done
    fail "rfw on $1 is not ready after ten seconds"
}

# Namespaces and files end by themselves with the last process in them.
clean_up() {
    for pid in "${running[@]}"; do
        kill -KILL "$pid" || :
    done
    wait
} 2>/dev/null
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' HUP TERM
trap 'fail "line $LINENO: $BASH_COMMAND"' ERR

# No proxy of the caller's leads into the play.
unset http_proxy https_proxy HTTPS_PROXY all_proxy ALL_PROXY

mkdir "$stage"
cd "$stage"
ip link add internet type bridge forward_delay 0 || fail 'the kernel has no bridge interfaces'
ip link set internet up
for host in toronto berlin reputation laptop attacker stranger; do
    connect $host "${!host}"
done

# ---- the play ----

say <<END
${bold}rfw - remote firewall: a play on one machine${plain}

rfw runs on a server and lets other computers block and allow addresses in the
firewall (iptables) of that server, by simple requests over HTTPS.  The actors:

    toronto      $toronto   a web server, where rfw runs
    berlin       $berlin   a web server, where rfw runs
    reputation   $reputation   a server that finds out who attacks
    laptop       $laptop   the admin's own computer
    attacker     $attacker   floods web servers
    stranger     $stranger   has no business with rfw

Each is a network namespace, wired together here and nowhere else: the firewall
and the network of this machine are left alone.  Lines like "laptop$ ..." are
commands, run as they stand on that host, with their answers.
END

scene 'The admin makes keys'
say <<'END'
All requests are encrypted, and a client must be able to tell the true server
from a false one.  So the admin runs rfwgen once for each server.

END
PATH="$tree/etc/deploy:$PATH"
for address in $toronto $berlin; do
    on laptop "rfwgen $address | sed -n 1p"
    succeeded rfwgen
done
on laptop 'find . -type f | sort'
cp laptop/client/ca.crt laptop/
cp laptop/client/ca.crt reputation/
cp laptop/client/ca.crt stranger/
say <<'END'
Each server gets its own key and certificate, and each client gets ca.crt, by
which it knows the servers.  ca.key belongs in a drawer.
END

scene 'rfw starts on both servers'
for host in toronto berlin; do
    mv "laptop/server_${!host}/"* $host/
    cat >$host/rfw.conf <<END
[config]
outward.server
outward.server.port = 7393
outward.server.ip = ${!host}
outward.server.certfile = $stage/$host/server.crt
outward.server.keyfile = $stage/$host/server.key
auth.username = play
auth.password = curtain
default.expire = 1h
whitelist.file = $stage/$host/white.list
END
    printf '%s\n' "$reputation" "$laptop" >$host/white.list
    chmod 600 $host/rfw.conf
done
say <<'END'
The configuration has a name and a password, and a white list: these addresses
may send requests, nobody else, and nobody can ever block them.

END
on toronto 'cat rfw.conf'
on toronto 'cat white.list'
start toronto
start berlin
say <<'END'
rfw is ready on both.  Its first act was to guard its own port, 7393:

END
on toronto 'iptables -S'
answered '--dport 7393 -m comment --comment "rfw guard" -j DROP'

scene 'The attacker reaches the web servers'
passes attacker $toronto
passes attacker $berlin

scene 'The reputation server blocks the attacker on both servers'
say <<'END'
It has seen the flood.  PUT blocks an address: "drop" what comes in ("input")
on "any" interface from there.  A block ends by itself; here after 12 seconds, so
that we see it end (an hour is more usual: expire=1h).

END
credentials='--cacert ca.crt --user play:curtain'
declare -A expires
for host in toronto berlin; do
    on reputation "curl -sS $credentials -X PUT \\
    'https://${!host}:7393/drop/input/any/$attacker?expire=12'"
    succeeded "the request to $host"
    answered '"result":"inserted"'
    expires[$host]=$(sed -n 's/.*"expires":"\([^"]*\)".*/\1/p' <<<"$answer")
    [ -n "${expires[$host]}" ] || fail 'the answer should say when the block expires'
done
say <<'END'
Each answer says what was done, and when it ends.  No more is needed: it is now
a rule in the firewall of that server, with a comment that says when it ends.

END
on toronto 'iptables -S INPUT | grep DROP'
answered "-A INPUT -s $attacker/32 -m comment --comment \"rfw until "

scene 'The attacker gets no further'
is_blocked attacker $toronto
is_blocked attacker $berlin

scene 'The admin looks at the list'
say <<'END'
GET shows what the kernel holds at this moment.  The packets that the rule has
stopped are counted in "pkts".

END
for address in $toronto $berlin; do
    on laptop "curl -sS $credentials https://$address:7393/list"
    succeeded "the request to $address"
    answered "\"source\":\"$attacker\""
    answered '"pkts":"1"'
done

scene 'A stranger gets nowhere'
say <<'END'
The stranger has stolen ca.crt and even the password.  But its address is not in
the white list, so the firewall drops what it sends to rfw: there is no answer,
not even a refusal.  (The web server itself it may reach, as before.)

END
passes stranger $toronto
on stranger "curl -sS --connect-timeout 2 $credentials https://$toronto:7393/list"
[ "$status" = 28 ] || fail "the stranger's connection should have timed out (28), but ended with $status"

scene 'Nobody can block the admin'
say <<'END'
The reputation server makes a mistake, and sends the address of the laptop.

END
on reputation "curl -sS -i $credentials -X PUT \\
    https://$toronto:7393/drop/input/any/$laptop"
succeeded 'the request'
answered 'HTTP/1.1 400 '
answered '"error":"'
answered "$laptop"
passes laptop $toronto

scene 'The admin takes a block back'
say <<'END'
The reputation server blocks the stranger for a day, only for knocking.  That is
too hard, says the admin.  DELETE takes a block away at once.

END
on reputation "curl -sS $credentials -X PUT \\
    'https://$toronto:7393/drop/input/any/$stranger?expire=1d'"
succeeded 'the request'
answered '"result":"inserted"'
is_blocked stranger $toronto
on laptop "curl -sS $credentials -X DELETE \\
    https://$toronto:7393/drop/input/any/$stranger"
succeeded 'the request'
answered '"result":"deleted"'
passes stranger $toronto

scene 'The block of the attacker ends by itself'
say <<END
It was to end at ${expires[toronto]}, and nobody has to do anything.
(Now it is $(date -u +%Y-%m-%dT%H:%M:%SZ); waiting.)

END
for host in toronto berlin; do
    end=$(date -d "${expires[$host]}" +%s)
    until at attacker ping -q -c 1 -W 0.3 "${!host}" >/dev/null; do
        [ "$(date +%s)" -lt $((end + 5)) ] || fail "the block on $host did not end in time"
    done
    [ "$(date +%s)" -ge "$end" ] || fail "the block on $host ended too early"
done
passes attacker $toronto
passes attacker $berlin
for address in $toronto $berlin; do
    on laptop "curl -sS $credentials https://$address:7393/list"
    succeeded "the request to $address"
    [ "$answer" = '[]' ] || fail 'the list should be empty'
done

scene 'rfw has kept a log, and ends'
on toronto 'cat rfw.log'
kill -TERM "${running[@]}"
for pid in "${running[@]}"; do
    wait "$pid" || fail "rfw ended with status $? instead of 0"
done
running=()
say <<'END'
That was rfw.  All hosts of the play are gone, and this machine is as it was.
The README and the tutorial tell how to use rfw on servers of your own.
END
