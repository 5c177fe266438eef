# make run [PROMPT="..."] [RUN_ARGS="..."]   runs the engine
# make test                                  runs all tests
# make bench                                 measures this machine: a table, and JSON beside it
# They set the machine up first (see .ci/setup): a fresh one needs only Rust.

CARGO ?= cargo

# Without a prompt the model begins by itself.
PROMPT ?=
export PROMPT
# A budget of GPU memory smaller than the model: what does not fit streams.
RUN_ARGS ?= run --vram 6MiB

# Mesa's layer for choosing a GPU complains where there is no desktop; the engine chooses itself.
export NODEVICE_SELECT = 1

.PHONY: run test setup fmt clippy doc bench

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
