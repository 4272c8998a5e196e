# `make help` lists the targets. Settings on the command line: ARGS (run, bench, suite),
# PREFIX and DESTDIR (install), CASES (generated histories in compat-long), SECONDS and TARGETS (fuzz),
# MINUTES (soak, chaos), SEED, MB and PEER (chaos), NODES and SEEDS (simulate), ROUNDS (crash), N (lesson-diff, exercise).

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
# Redis's names for the programs: a program that is started under such a name behaves as the one of that name.
REDIS_NAMES = redis-server redis-check-rdb redis-check-aof

N       ?= 2

.PHONY: all run test check compat compat-long interop bench suite suite-long fuzz asan crash chaos simulate miri page lesson-diff exercise soak install install-redis-names help
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
	$(call step,tests of the server (a few minutes),$(CARGO) test --workspace)
	$(call step,tests of tools/suite (seconds),python3 -B -m unittest discover -s tools/suite/tests -t tools/suite)
	$(call step,tests of tools/bench (seconds),python3 -B -m unittest discover -s tools/bench/tests -t tools/bench)

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

bench: all      ## CPU and memory beside the real servers, and the budgets (tools/bench/bench --help)
	$(CARGO) build --release -p bench-load
	tools/bench/bench --server aeris=$(TARGET)/release/aeris-server --peers --budget $(ARGS)

suite: peers    ## the units of Valkey's Tcl suite that must pass (make suite ARGS="--units unit/expire")
	$(CARGO) build
	tools/suite/fetch.sh >/dev/null
	tools/suite/run --server $(TARGET)/debug/aeris-server --profile quick --retries 2 $(or $(ARGS),--clean)

suite-long: peers   ## the whole Tcl suite
	$(CARGO) build --profile fast
	tools/suite/fetch.sh >/dev/null
	tools/suite/run --server $(TARGET)/fast/aeris-server --all --cluster --sentinel $(ARGS)

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
	cargo build --bin aeris-server
	python3 -B tools/page/shots.py --server target/debug/aeris-server --out target/page

lesson-diff:    ## what lesson N adds to the one before (make lesson-diff N=4)
	@diff -u ae/lessons/$$(printf %02d $$(($(N) - 1)))_*.rs ae/lessons/$$(printf %02d $(N))_*.rs || true

exercise:       ## the test of the exercise of lesson N, which fails until it is solved (make exercise N=5)
	@$(CARGO) build --quiet -p ae --examples
	$(CARGO) test --quiet -p ae --test exercises -- --ignored exercise_$$(printf %02d $(N))

soak: all       ## ten clients run all commands concurrently for MINUTES; fails if memory grows or a client hangs
	tools/soak/soak --server $(TARGET)/release/aeris-server --minutes $(MINUTES) $(ARGS)

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
