# GNU make.  "make help" lists what there is to make.

# Tools of the system are in sbin, which is not in every user's PATH; Rust may have
# been installed a minute ago, by rustup, which changes PATH for new shells only.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/local/sbin:/usr/sbin:/sbin

# A recipe is one script, which ends at the first command that fails.
SHELL = /bin/sh
.SHELLFLAGS = -euc
.ONESHELL:

# cargo uses all processors by itself, and what installs has to come before the rest.
.NOTPARALLEL:

TARGET_DIR = $(or $(CARGO_TARGET_DIR),target)

# Where rfw is installed, in the names of the GNU coding standards.  Who makes a
# package sets DESTDIR, which goes before all of these.
PREFIX = /usr/local
SYSCONFDIR = /etc
bindir = $(PREFIX)/bin
sbindir = $(PREFIX)/sbin
datadir = $(PREFIX)/share
mandir = $(datadir)/man
docdir = $(datadir)/doc/rfw
unitdir = $(PREFIX)/lib/systemd/system

# The program to install.  The tarball without sources has it beside this file.
BINARY = $(if $(wildcard Cargo.toml),$(TARGET_DIR)/release/rfw,rfw)

# What is used beyond Rust, each command with the Debian package that brings it.
# Building (ring is partly C):
build-deps = cc:gcc
# The demo: hosts of their own, with a firewall, keys and clients:
demo-deps = $(build-deps) iptables:iptables ip6tables:iptables ip:iproute2
demo-deps += unshare:util-linux nsenter:util-linux setpriv:util-linux mount:mount
demo-deps += ping:iputils-ping curl:curl openssl:openssl bash:bash awk:mawk
# The bench, which compares with the bare tools:
bench-deps = $(demo-deps) ipset:ipset kill:procps taskset:util-linux
# The tests, on both variants of iptables; they read the man pages, ban with the real
# fail2ban, scrape with the real Prometheus, check the unit, look at the program that "make dist" makes, install a package,
# sign a release, lay programs over a host that come in packages of Debian, and open the page
# in a browser:
test-deps = $(bench-deps) iptables-nft:iptables iptables-legacy:iptables
test-deps += timeout:coreutils mkfifo:coreutils prlimit:util-linux script:bsdutils flock:util-linux mandoc:mandoc
test-deps += nft:nftables perl:perl-base
test-deps += fail2ban-server:fail2ban prometheus:prometheus promtool:prometheus systemd-analyze:systemd readelf:binutils
test-deps += /usr/bin/python3:python3 $(addprefix /usr/lib/python3/dist-packages/,yaml:python3-yaml jsonschema:python3-jsonschema)
test-deps += dpkg-deb:dpkg deb-systemd-invoke:init-system-helpers ssh-keygen:openssh-client setsid:util-linux
# rfwctl is for any shell of POSIX, and completes in two:
test-deps += dash:dash busybox:busybox zsh:zsh
test-deps += chromium:chromium chromedriver:chromium-driver certutil:libnss3-tools
# Checking shell scripts and the unit:
lint-deps = $(build-deps) awk:mawk shellcheck:shellcheck systemd-analyze:systemd

.PHONY: all
all: rust	## build rfw (the default): target/release/rfw
	@cargo build --release --locked

.PHONY: demo
demo: demo-deps all	## see what rfw does, on packets, in half a minute
	@tests/demo.sh '$(TARGET_DIR)/release/rfw'

# Most tests wait most of the time, so there are three at once for each processor.
.PHONY: test
test: test-deps neighbours	## run all tests; as root or as a plain user
	@echo 'Testing the parts, the whole in namespaces, and defects of the past: five minutes on two processors'
	cargo test --locked -- --test-threads "$$(($$(nproc) * 3))"

# Programs that change the tables of a host, which are not installed: see the script.
.PHONY: neighbours
neighbours:
	@tests/integration/neighbours/fetch '$(TARGET_DIR)/neighbours'

# Each for a minute, or SECONDS; or only TARGET.  What is found stays in FUZZ_DIR: in corpus what
# reaches something new, and in artifacts that for which a property does not hold.
FUZZ_DIR = $(TARGET_DIR)/fuzz
SECONDS = 60

.PHONY: fuzz
fuzz: rust	## look for inputs that the parsers should not take as they do (cargo-fuzz)
	@cargo fuzz --version >/dev/null 2>&1 || {
		echo 'cargo fuzz is missing: cargo install cargo-fuzz' >&2
		exit 1
	}
	targets='$(TARGET)'
	for target in $${targets:-$$(ls tests/fuzz/corpus)}; do
		mkdir -p '$(FUZZ_DIR)/corpus/'"$$target" '$(FUZZ_DIR)/artifacts/'"$$target"
		cargo fuzz run --sanitizer none --fuzz-dir tests/fuzz --target-dir '$(FUZZ_DIR)' "$$target" \
			'$(FUZZ_DIR)/corpus/'"$$target" "tests/fuzz/corpus/$$target" -- \
			-max_total_time='$(SECONDS)' -artifact_prefix='$(FUZZ_DIR)/artifacts/'"$$target/"
	done

.PHONY: bench
bench: bench-deps	## measure rfw against the bare tools and in a crowd, in five minutes
	@cargo bench --locked --bench bench

.PHONY: bench-peers
bench-peers: bench-deps	## measure rfw beside nft, firewalld and fail2ban, where they are installed
	@cargo bench --locked --bench bench -- --peers

# A script is known by its first line, whatever its name is.
.PHONY: lint
lint: lint-deps	## check format, Rust, documentation, crates and shell scripts
	@cargo fmt --version >/dev/null 2>&1 || {
		echo 'cargo fmt is missing: rustup component add rustfmt' >&2
		exit 1
	}
	cargo clippy --version >/dev/null 2>&1 || {
		echo 'cargo clippy is missing: rustup component add clippy' >&2
		exit 1
	}
	set -x
	cargo fmt --check
	cargo fmt --check --manifest-path tests/fuzz/Cargo.toml
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps --document-private-items
	etc/crates.sh check
	find . \( -path ./.git -o -path ./target -o -path ./vendor \) -prune -o -type f -exec awk \
		'FNR == 1 { if (/^#!.*[\/ ](ba|da)?sh( |$$)/) printf "%s%c", FILENAME, 0; nextfile }' {} + |
		xargs -0 shellcheck
	unit=$$(mktemp -d)
	trap 'rm -r "$$unit"' EXIT
	for name in rfw.service rfw-restore.service; do
		sed -e 's|@sbindir@/rfw|/bin/true|' -e 's|@sysconfdir@|/etc|' \
			"etc/systemd/$$name" > "$$unit/$$name"
	done
	systemd-analyze verify --man=no "$$unit/rfw.service" "$$unit/rfw-restore.service"

.PHONY: install
install: built	## install rfw; takes PREFIX, SYSCONFDIR, DESTDIR
	@export DESTDIR SYSCONFDIR='$(SYSCONFDIR)' BINARY='$(BINARY)'
	export bindir='$(bindir)' sbindir='$(sbindir)' datadir='$(datadir)' mandir='$(mandir)' docdir='$(docdir)' unitdir='$(unitdir)'
	etc/install.sh install

.PHONY: uninstall
uninstall:	## remove the programs again, and keep the configuration
	@export DESTDIR SYSCONFDIR='$(SYSCONFDIR)' BINARY='$(BINARY)'
	export bindir='$(bindir)' sbindir='$(sbindir)' datadir='$(datadir)' mandir='$(mandir)' docdir='$(docdir)' unitdir='$(unitdir)'
	etc/install.sh uninstall

# Not for cargo to find out: root installs what someone else has built, perhaps
# without having cargo.
.PHONY: built
built:
	@if [ '$(origin BINARY)' != file ] || [ ! -e Cargo.toml ]; then exit 0; fi
	if [ -x '$(BINARY)' ] && [ -z "$$(find Cargo.toml Cargo.lock src -newer '$(BINARY)')" ]; then
		exit 0
	fi
	$(MAKE) all
	touch '$(BINARY)'

.PHONY: dist
dist: rust	## make the tarballs: sources with all crates, static program
	@TARGET_DIR='$(TARGET_DIR)' etc/dist.sh

# Of the static program: from the tarball that "make dist" has just made, or in such a
# tarball of the program beside this file, and else of one that is named.
DEB_DIR = $(if $(wildcard Cargo.toml),$(TARGET_DIR)/dist,.)

.PHONY: deb
deb: $(if $(filter file,$(origin BINARY)),$(if $(wildcard Cargo.toml),dist))	## make the package for Debian, of the static program
	@mkdir -p '$(DEB_DIR)'
	out=$$(cd '$(DEB_DIR)' && pwd)
	if [ '$(origin BINARY)' != file ] || [ ! -e Cargo.toml ]; then
		OUT="$$out" BINARY='$(BINARY)' etc/deb.sh
		exit 0
	fi
	archive=$$(mktemp -d)
	trap 'rm -rf "$$archive"' EXIT
	trap 'exit 1' HUP INT TERM
	tar -C "$$archive" --strip-components=1 -xf "$$out"/rfw-*-linux-*.tar.gz
	OUT="$$out" BINARY=rfw "$$archive/etc/deb.sh"

# The key that signs releases; never in this tree.
RELEASE_KEY = $(HOME)/.config/rfw/release-key

.PHONY: release-key
release-key:	## make the key that signs releases (RELEASE_KEY), if there is none
	@RELEASE_KEY='$(RELEASE_KEY)' TARGET_DIR='$(TARGET_DIR)' etc/sign.sh key

.PHONY: sign
sign:	## sign the tarballs and the package with that key
	@RELEASE_KEY='$(RELEASE_KEY)' TARGET_DIR='$(TARGET_DIR)' etc/sign.sh sign

# The second time from the tarball of the first, elsewhere and without a network.
.PHONY: distcheck
distcheck: deb	## see that "make dist" and "make deb" give the same bytes a second time
	@again=$$(mktemp -d)
	trap 'rm -rf "$$again"' EXIT
	trap 'exit 1' HUP INT TERM
	version=$$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
	tar -C "$$again" -xf '$(TARGET_DIR)'/dist/rfw-$$version.tar.gz
	CARGO_NET_OFFLINE=true $(MAKE) -C "$$again/rfw-$$version" deb CARGO_TARGET_DIR="$$again/target"
	for file in '$(TARGET_DIR)'/dist/rfw[-_]*; do
		cmp "$$file" "$$again/target/dist/$${file##*/}"
	done
	echo 'the same bytes, twice'

.PHONY: deps
deps: test-deps lint-deps neighbours	## install what is missing beyond Rust (Debian; root or sudo)

# Each installs what the variable of its name lists.
.PHONY: demo-deps bench-deps test-deps lint-deps
demo-deps bench-deps test-deps lint-deps: rust
	@has() (
		# What has a path, as a module of Python, has to be there.
		case $$1 in /*) [ -e "$$1" ] && exit 0 || exit 1 ;; esac
		IFS=:
		for folder in $$PATH; do
			if [ -x "$$folder/$$1" ]; then exit 0; fi
		done
		exit 1
	)
	# Sets what is missing: commands, and the packages that bring them.
	look() {
		commands=''
		packages=''
		for need in $($@); do
			has "$${need%:*}" || missing "$${need%:*}" "$${need#*:}"
		done
		# A compiler is of no use without the headers of C, and gcc only
		# recommends their package.
		if ! echo '#include <stdlib.h>' | cc -E - >/dev/null 2>&1; then
			missing stdlib.h libc6-dev
		fi
	}
	missing() {
		commands="$$commands $$1"
		case " $$packages " in
			*" $$2 "*) ;;
			*) packages="$$packages $$2" ;;
		esac
	}
	give_up() {
		echo "Missing:$$commands" >&2
		echo "$$1: apt-get install$$packages" >&2
		exit 1
	}
	look
	if [ -z "$$packages" ]; then exit 0; fi
	has apt-get || give_up 'On Debian they come with'
	if [ "$$(id -u)" = 0 ]; then
		sudo=''
	elif has sudo && sudo -n true 2>/dev/null; then
		sudo='sudo -n'
	else
		give_up 'Run this as root'
	fi
	echo "Installing:$$packages"
	# A fresh machine has no lists of packages, and old lists name packages that
	# are gone.  Another apt-get at work is waited for.
	apt="$$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120"
	$$apt update </dev/null
	# Debian starts fail2ban with a jail of its own, but nothing may touch the
	# firewall of this machine, and Prometheus, of which the program is enough.
	quiet=''
	for service in fail2ban prometheus; do
		case " $$packages " in
			*" $$service "*) if [ -d /run/systemd/system ]; then quiet="$$quiet $$service"; fi ;;
		esac
	done
	if [ -n "$$quiet" ]; then $$sudo systemctl mask --runtime $$quiet; fi
	$$apt install --no-install-recommends $$packages </dev/null
	if [ -n "$$quiet" ]; then
		$$sudo systemctl unmask --runtime $$quiet
		$$sudo systemctl disable $$quiet
	fi
	look
	if [ -n "$$packages" ]; then give_up 'They are still not found after'; fi

# Says in one line what is wrong with Rust, if it is.
.PHONY: rust
rust:
	@if [ ! -e Cargo.toml ]; then
		echo 'There is nothing to build here: make install, or make uninstall' >&2
		exit 1
	fi
	wanted=$$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
	rustup='get it from https://rustup.rs'
	for tool in cargo rustc; do
		if ! version=$$($$tool --version 2>/dev/null); then
			echo "$$tool is missing: rfw needs Rust $$wanted or newer, $$rustup" >&2
			exit 1
		fi
		version=$${version#* }
		version=$${version%%[ -]*}
		if [ "$$(printf '%s\n' "$$wanted" "$$version" | sort -V | head -n 1)" != "$$wanted" ]; then
			echo "$$tool $$version is too old: rfw needs Rust $$wanted or newer, $$rustup (or: rustup update)" >&2
			exit 1
		fi
	done

.PHONY: clean
clean: rust	## remove all that was built
	@cargo clean

.PHONY: help
help:	## show this list
	@sed -n 's/^\([a-z-]*\):.*	## /\1	/p' Makefile | expand -t 13
