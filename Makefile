# The commands of this project. `make run` and `make test` need nothing but Rust.

.PHONY: run test bench release

# Starts a simulated Cal.com and the gateway in front of it; with CAL_API_KEY set, the gateway in front of the real one.
run:
	scripts/demo

# Installs what the tests need, and runs them all.
test:
	scripts/test-deps
	scripts/run-tests
	scripts/test-valkey

# A release build tuned by a profile of itself, for what runs all day: target/profiled/calgate.
release:
	python3 benches/compare/profiled.py

# calgate beside nginx and HAProxy, by the same load: BENCH_ARGS="--quick", "--only base https", … (benches/compare).
bench:
	python3 benches/compare/run.py $(BENCH_ARGS)
