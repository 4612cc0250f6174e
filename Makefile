# Commands of this project. `make run` needs Rust, a C compiler and bash. `make test` installs what else it needs.

.PHONY: run lint test test-long test-stalls test-quiet clients bench release

# Starts a simulated Cal.com and calgate in front of it. If CAL_API_KEY is set, calgate uses the real Cal.com.
run:
	scripts/demo

# Checks formatting, lints, documentation, dependencies, spelling, words and commit subjects. STEPS="clippy words" runs some.
lint:
	scripts/lint $(STEPS)

# Installs what the tests need, and runs all tests.
test:
	scripts/test-deps
	scripts/run-tests --all
	scripts/test-valkey

# The nightly run: each property test with CASES random cases. TESTS="budget::" selects tests. proptest writes a failed case to
# proptest-regressions/. Commit that file.
CASES ?= 20000
test-long:
	scripts/test-deps
	CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 PROPTEST_CASES=$(CASES) \
		cargo test --locked --release -- --skip limit_store::fleet --skip limit_store::faults --skip limit_store::stalls $(TESTS)

# Tests of gateways that are stopped, throttled or far from their store, for two minutes each.
test-stalls:
	scripts/test-deps
	CALGATE_STALL_SECONDS=120 cargo test --locked -- limit_store::stalls --nocapture --test-threads 1

# Tests that measure throughput. They need a machine without other load.
test-quiet:
	scripts/test-deps
	NEXTEST_TEST_THREADS=1 RUST_TEST_THREADS=1 scripts/run-tests -- --ignored

# HTTP clients and SDKs of other languages against calgate (tests/clients). CLIENTS="npm curl" selects some.
clients:
	python3 tests/clients/run.py $(CLIENTS)

# A release build that is optimized with a profile of the request path: target/profiled/calgate.
release:
	python3 benches/compare/profiled.py

# Compares calgate with nginx and HAProxy under the same load (benches/compare), for example with BENCH_ARGS="--quick".
bench:
	python3 benches/compare/run.py $(BENCH_ARGS)
