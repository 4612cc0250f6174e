.PHONY: bench

# calgate beside nginx and HAProxy, by the same load: BENCH_ARGS="--quick", "--only base https", … (benches/compare).
bench:
	python3 benches/compare/run.py $(BENCH_ARGS)
