# make run [PROMPT="..."] [RUN_ARGS="..."]   runs the engine
# make test                                  runs all tests
# make bench                                 measures this machine: a table, and JSON beside it
# make sanitize [TESTS="os:: pipeline::"]    runs unit tests under AddressSanitizer, on x86-64 Linux
# They set the machine up first (see .ci/setup): a fresh one needs only Rust.

CARGO ?= cargo

# Without a prompt the model begins by itself.
PROMPT ?=
export PROMPT
# A budget of GPU memory smaller than the model: what does not fit streams.
RUN_ARGS ?= run --vram 6MiB

# Mesa's layer for choosing a GPU complains where there is no desktop; the engine chooses itself.
export NODEVICE_SELECT = 1

# Parts of the names of unit tests; without any, all run.
TESTS ?=

.PHONY: run test setup fmt clippy doc bench sanitize

# Nothing is read from standard input: in a script that may be a pipe that never ends.
run: setup
	@$(CARGO) run --release -- $(RUN_ARGS) $${PROMPT:+-p "$$PROMPT"} < /dev/null

test: setup
	$(CARGO) test

setup:
	@sh .ci/setup

fmt:
	$(CARGO) fmt --check

clippy: setup
	$(CARGO) clippy --all-targets -- -D warnings

doc: setup
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps

bench: setup
	$(CARGO) bench --bench kernels
	$(CARGO) bench --bench decode
	$(CARGO) bench --bench disk

# The stable compiler holds AddressSanitizer, under a switch that it keeps for others; everything is compiled anew,
# beside the usual files. What the driver never gives back is not ours, so that leaks are not looked for.
# ThreadSanitizer is of no use so: with a standard library that is not built for it, it sees neither a mutex that
# somebody waited for nor a channel, and calls all that they guard a race.
sanitize: export RUSTC_BOOTSTRAP = 1
sanitize: export RUSTFLAGS = -Zsanitizer=address
sanitize: export ASAN_OPTIONS = detect_leaks=0
sanitize: setup
	$(CARGO) test --target-dir target/sanitize --target x86_64-unknown-linux-gnu --lib -- $(TESTS)
