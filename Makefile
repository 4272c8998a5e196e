# `make help` lists the targets. Settings on the command line: ARGS (run, bench, suite),
# PREFIX and DESTDIR (install), CASES (generated histories in compat-long), SECONDS and TARGETS
# (fuzz), MINUTES (soak, chaos), SEED, MB and PEER (chaos), NODES and SEEDS (simulate), ROUNDS
# (crash), N (lesson-diff, exercise).

CARGO   ?= cargo
TARGET  ?= $(or $(CARGO_TARGET_DIR),target)
PREFIX  ?= /usr/local
BINDIR   = $(DESTDIR)$(PREFIX)/bin
CASES   ?= 12000
SECONDS ?= 60
TARGETS ?=
MINUTES ?= 60
NODES   ?= 100
SEEDS   ?= 10000
SEED    ?= 1
MB      ?= 50
PEER    ?=
ROUNDS  ?= 1000

PROGRAMS = aeris-server aeris-check-rdb aeris-check-aof
# Redis's names for the programs: a program that is started under such a name behaves as the one of
# that name.
REDIS_NAMES = redis-server redis-check-rdb redis-check-aof

N       ?= 2

.PHONY: all run test check compat compat-long interop bench suite suite-cluster suite-long suite-tls fuzz asan crash chaos simulate miri page book book-figures lesson-diff exercise soak pgo deb rpm deb-test install install-redis-names help
.NOTPARALLEL:

all:            ## build the server (release)
	$(CARGO) build --release

run: all        ## build and start it with redis.conf (make run ARGS="--port 7000")
	$(TARGET)/release/aeris-server redis.conf $(ARGS)

# $(call step,TITLE,COMMAND): the title, the command, the seconds it took.
define step
@echo "== $(1)"; started=$$(date +%s); $(2); status=$$?; \
	echo "-- $$(( $$(date +%s) - started )) s"; exit $$status
endef

test: peers     ## set up what the tests compare with, then all tests
	$(call step,build of the tests (the first time 5 minutes and 3 GB of memory),$(CARGO) test --workspace --no-run)
	$(call step,tests of the server (a few minutes),CARGO="$(CARGO)" tools/test.sh)
	$(call step,tests of tools/suite (seconds),python3 -B -m unittest discover -s tools/suite/tests -t tools/suite)
	$(call step,tests of tools/bench (seconds),python3 -B -m unittest discover -s tools/bench/tests -t tools/bench)
	$(call step,tests of tools/cluster (seconds),python3 -B -m unittest discover -s tools/cluster/tests -t tools/cluster)
	$(call step,tests of tools/evict-sim (seconds),python3 -B -m unittest discover -s tools/evict-sim/tests -t tools/evict-sim)

check:          ## formatting, lints, the rules of the house
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) test --test tidy

compat: peers   ## the same generated commands to us and to four real servers
	REQUIRE_PEERS=1 $(CARGO) test --test 'compat*'

compat-long: peers  ## the same with many more generated histories
	REQUIRE_PEERS=1 PROPTEST_CASES=$(CASES) $(CARGO) test --profile fast --test 'compat*' -- --nocapture

interop: peers  ## replication with real servers on the other side: each version, role, way of the snapshot and story
	REQUIRE_PEERS=1 $(CARGO) test --test replication -- --ignored every_ --nocapture

bench: all peers ## CPU and memory beside the real servers, and the budgets (tools/bench/bench --help)
	$(CARGO) build --release -p bench-load
	tools/bench/bench --server aeris=$(TARGET)/release/aeris-server --peers --budget $(ARGS)

suite: peers    ## the units of Valkey's Tcl suite that must pass (make suite ARGS="--units unit/expire")
	$(CARGO) build
	tools/suite/fetch.sh >/dev/null
	tools/suite/run --server $(TARGET)/debug/aeris-server --profile quick --retries 2 $(or $(ARGS),--clean)

# Some of its units wait for minutes, and tclsh needs minutes for replies of 16,384 ranges.
suite-cluster: peers    ## all of the suite's cluster units, one at a time (half an hour)
	$(CARGO) build
	tools/suite/fetch.sh >/dev/null
	tools/suite/run --server $(TARGET)/debug/aeris-server --jobs 1 --test-timeout 1200 \
		--timeout-per-unit 3600 --units 'unit/cluster/*' $(ARGS)

suite-long: peers   ## the whole Tcl suite
	$(CARGO) build --profile fast
	tools/suite/fetch.sh >/dev/null
	tools/suite/run --server $(TARGET)/fast/aeris-server --all --cluster --sentinel $(ARGS)

# A test of the lists makes 60,000 round trips of 16 KB, for which tcl-tls needs minutes.
suite-tls: peers    ## the suite's units of types, Pub/Sub, replication and TLS itself, over TLS
	$(CARGO) build --profile fast
	tools/suite/fetch.sh >/dev/null
	tools/suite/run --server $(TARGET)/fast/aeris-server --tls --test-timeout 1800 --timeout-per-unit 3600 \
		--retries 1 --units 'unit/tls,unit/pubsub,unit/type/*,integration/replication' $(ARGS)

fuzz:           ## each fuzz target for SECONDS (make fuzz SECONDS=600 TARGETS="resp hll")
	tools/fuzz.sh $(SECONDS) $(TARGETS)

asan:           ## the packed structures' tests under AddressSanitizer
	@tools/nightly.sh
	RUSTFLAGS="-Zsanitizer=address" $(CARGO) +nightly test --no-default-features --lib \
		--target $$(rustc -vV | sed -n 's/^host: //p') -- ds:: --skip commands::

crash:          ## kill -9 at random moments under load, ROUNDS times for each policy: nothing acknowledged is lost
	AERIS_CRASH_ROUNDS=$(ROUNDS) $(CARGO) test --test persistence_aof nothing_acknowledged -- --nocapture

chaos: peers    ## five servers, cut links, stopped and killed processes, full disks for MINUTES; what a promotion loses, beside real servers
	$(CARGO) test --test chaos -- --ignored --nocapture
	AERIS_CHAOS_MINUTES=$(MINUTES) AERIS_CHAOS_SEED=$(SEED) AERIS_CHAOS_MB=$(MB) AERIS_CHAOS_PEER=$(PEER) $(CARGO) test --test chaos nothing_acknowledged -- --nocapture

simulate:       ## SEEDS simulated clusters of 6 to 30 nodes with faults, many deaths in one of NODES, figures beside the formulae
	SIMULATE_SEEDS=$(SEEDS) $(CARGO) test --profile fast --test cluster_simulation -- --nocapture
	SIMULATE_NODES=$(NODES) SIMULATE_SEEDS=3 $(CARGO) test --profile fast --test cluster_simulation -- --ignored --nocapture table many_primaries

miri:           ## the same under Miri, which detects undefined behaviour (a quarter of an hour)
	@tools/nightly.sh miri
	MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-permissive-provenance" $(CARGO) +nightly miri test --no-default-features --lib -- ds:: --skip commands::

page:           ## pictures of the live page in headless Chromium (target/page), and no errors in it; needs chromium
	$(CARGO) build --bin aeris-server
	python3 -B tools/page/shots.py --server $(TARGET)/debug/aeris-server --out $(TARGET)/page

# The version of the program that renders the book. It is installed into the target folder, not for
# the user.
MDBOOK = $(TARGET)/mdbook/bin/mdbook
MDBOOK_VERSION = 0.4.52

$(MDBOOK):
	$(CARGO) install mdbook --version =$(MDBOOK_VERSION) --locked --no-default-features --root $(TARGET)/mdbook

# Chapter 12 shows the pictures of the live page, which are made here and not kept in the
# repository.
book: $(MDBOOK) ## the book on event loops as HTML (target/book/index.html); installs mdbook into the target folder
	tools/book/book draw
	$(MDBOOK) build ae/book --dest-dir $(abspath $(TARGET)/book)
	@if command -v chromium >/dev/null; then \
		$(CARGO) build --bin aeris-server && \
		python3 -B tools/page/shots.py --server $(TARGET)/debug/aeris-server --out $(TARGET)/book/book/page; \
	else \
		echo "The book has no pictures of the live page: chromium is missing (apt-get install chromium)."; \
	fi

book-figures:   ## measure the book's figures and record its traces again on this machine (some minutes)
	$(CARGO) build
	tools/book/book measure
	tools/book/book trace --server $(TARGET)/debug/aeris-server

# The lesson's number in two digits, from N with or without a zero before it.
LESSON = $(shell echo $(N) | sed -n 's/^0*\([1-9][0-9]\{0,1\}\)$$/0\1/; s/^0\([0-9][0-9]\)$$/\1/; /^[0-9][0-9]$$/p')

lesson-diff:    ## what lesson N adds to the one before (make lesson-diff N=4)
	@new=$$(ls ae/lessons/$(or $(LESSON),none)_*.rs 2>/dev/null) || { echo "There is no lesson $(N)."; exit 1; }; \
	old=$$(ls ae/lessons/*.rs | grep -B 1 "^$$new$$" | head -n 1); \
	[ "$$old" = "$$new" ] && old=/dev/null; \
	diff -u $$old $$new || true

exercise:       ## the test of the exercise of lesson N, which fails until it is solved (make exercise N=5)
	@ls ae/lessons/$(or $(LESSON),none)_*.rs >/dev/null 2>&1 || { echo "There is no lesson $(N)."; exit 1; }
	@$(CARGO) build --quiet -p ae --examples
	$(CARGO) test --quiet -p ae --test exercises -- --ignored exercise_$(LESSON)

soak: all       ## ten clients run all commands concurrently for MINUTES; fails if memory grows or a client hangs
	tools/soak/soak --server $(TARGET)/release/aeris-server --minutes $(MINUTES) $(ARGS)

pgo:            ## the server built with a profile of the benchmark's workloads, and beside it without
	$(CARGO) build --release
	tools/pgo.sh $(TARGET)
	tools/bench/bench --server pgo=$(TARGET)/pgo/release/aeris-server --server plain=$(TARGET)/release/aeris-server \
		--only cpu $(ARGS)

deb: all        ## a Debian package in $(TARGET): programs, units of systemd, man pages, completions
	tools/package/build_deb.sh $(TARGET)/release $(TARGET)

rpm: all        ## the same as an RPM package; needs cargo-generate-rpm
	tools/package/build_rpm.sh $(TARGET)/release $(TARGET)

deb-test:       ## the package in a root made by debootstrap: install, start, clients of Debian, upgrade, purge; as root
	$(CARGO) build
	tools/package/test_deb.sh $(TARGET)

install: all    ## install into PREFIX
	install -d $(BINDIR)
	install -m 755 $(addprefix $(TARGET)/release/,$(PROGRAMS)) $(BINDIR)

install-redis-names: install  ## the same, and link it under the names of Redis's programs
	for name in $(REDIS_NAMES); do ln -sf aeris-server $(BINDIR)/$$name; done

.PHONY: peers
peers:
	@tools/peers.sh

help:           ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-20s %s\n", $$1, $$2}' Makefile
