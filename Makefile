# The commands of this project. `make run` and `make test` need nothing but Rust.

.PHONY: run lint test test-long test-stalls test-quiet clients bench release

# Starts a simulated Cal.com and the gateway in front of it; with CAL_API_KEY set, the gateway in front of the real one.
run:
	scripts/demo

# Checks formatting, lints, documentation, dependencies, spelling, words and commit subjects: STEPS="clippy words" for some.
lint:
	scripts/lint $(STEPS)

# Installs what the tests need, and runs them all.
test:
	scripts/test-deps
	scripts/run-tests --all
	scripts/test-valkey

# The nightly run: CASES random cases of each property test (TESTS="budget::" for some of them). A case that fails is kept in
# proptest-regressions/. Commit that file.
CASES ?= 20000
test-long:
	scripts/test-deps
	CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 PROPTEST_CASES=$(CASES) \
		cargo test --locked --release -- --skip limit_store::fleet --skip limit_store::faults --skip limit_store::stalls $(TESTS)

# Gateways that are stopped, throttled or far from their store, for two minutes each.
test-stalls:
	scripts/test-deps
	CALGATE_STALL_SECONDS=120 cargo test --locked -- limit_store::stalls --nocapture --test-threads 1

# Tests that measure throughput: they need a machine on which little else runs.
test-quiet:
	scripts/test-deps
	NEXTEST_TEST_THREADS=1 RUST_TEST_THREADS=1 scripts/run-tests -- --ignored

# HTTP clients and SDKs of other languages against calgate: CLIENTS="npm pypi java curl" (tests/clients).
clients:
	python3 tests/clients/run.py $(CLIENTS)

# A release build tuned by a profile of itself, for what runs all day: target/profiled/calgate.
release:
	python3 benches/compare/profiled.py

# calgate beside nginx and HAProxy, by the same load: BENCH_ARGS="--quick", "--only base https", … (benches/compare).
bench:
	python3 benches/compare/run.py $(BENCH_ARGS)
