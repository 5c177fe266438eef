# make run [PROMPT="..."] [RUN_ARGS="..."]   runs the engine
# make test                                  runs all tests
# Both set the machine up first (see .ci/setup): a fresh one needs only Rust.

CARGO ?= cargo

PROMPT ?= Once upon a time
export PROMPT
# A budget of GPU memory smaller than the model.
RUN_ARGS ?= run --vram 8MiB

.PHONY: run test setup fmt clippy doc bench

run: setup
	$(CARGO) run --release -- $(RUN_ARGS) "$$PROMPT"

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
	$(CARGO) bench
