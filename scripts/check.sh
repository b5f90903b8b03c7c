#!/usr/bin/env bash
# Everything that has to hold before a change is merged; people and CI run this one command.
#
#   scripts/check.sh            all of it
#   scripts/check.sh --quick    formatting, lints and tests only
#
# Every step runs, whatever became of the ones before; the summary says which failed, which were skipped
# because a tool is absent, and what this machine cannot check at all. Exit status 1 if a step failed.

set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

quick=false
case "${1:-}" in
"") ;;
--quick) quick=true ;;
*)
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac

summary=()
failed=0

# step NAME COMMAND...: runs the command and notes what became of it and how long it took.
step() {
    local name=$1 started=$SECONDS verdict=ok
    shift
    printf '\n==> %s: %s\n' "$name" "$*"
    "$@" || { verdict=FAILED failed=1; }
    summary+=("$(printf '%-9s %4d s  %s' "$verdict" $((SECONDS - started)) "$name")")
}

# note VERDICT NAME REASON: for what did not run.
note() { summary+=("$(printf '%-9s         %s: %s' "$1" "$2" "$3")"); }

has() { command -v "$1" >/dev/null 2>&1; }

# Lints a set of features; what it builds of other people's crates is shared between the sets.
lint() { cargo clippy --workspace --all-targets "$@" -- -D warnings; }

step "format" cargo fmt --all --check
step "lint" lint
step "test" cargo test --workspace

if ! $quick; then
    step "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

    step "features: none" lint --no-default-features
    step "features: bundled" lint --no-default-features --features bundled
    step "features: hub" lint --no-default-features --features hub
    step "features: default and ffmpeg" lint --features ffmpeg
    if has ffmpeg; then
        step "video through ffmpeg" cargo test --workspace --features ffmpeg --lib --test vision ffmpeg
    else
        note skipped "video through ffmpeg" "ffmpeg is not installed"
    fi
    if [[ -n ${MKLROOT:-} ]]; then
        step "features: mkl" cargo check --workspace --lib --no-default-features --features mkl
    else
        note unchecked "features: mkl" "needs Intel's library (MKLROOT is not set)"
    fi
    if [[ $(uname -s) == Darwin ]]; then
        step "features: accelerate" lint --features accelerate
    else
        note unchecked "features: accelerate" "needs an Apple machine"
    fi
    if has nvcc; then
        step "features: cuda, cudnn" lint --features cudnn
    else
        note unchecked "features: cuda, cudnn" "need nvcc, which is not installed"
    fi

    python=${PYTHON:-python3}
    if "$python" -c 'import numpy' 2>/dev/null; then
        step "weight scripts" "$python" -m unittest discover scripts/weights
    else
        note skipped "weight scripts" "no Python with numpy (set PYTHON to one)"
    fi
    if has cargo-deny; then
        step "licences, bans, sources" cargo deny check bans licenses sources
    else
        note skipped "bans" "cargo-deny is not installed (licences and sources are tested without it)"
    fi
fi

printf '\n'
printf '%s\n' "${summary[@]}"
exit $failed
