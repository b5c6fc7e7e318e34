#!/usr/bin/env bash
# Makes the hashed locks from pyproject.toml; run it after changing a dependency (needs uv). Addresses of indexes stay out.
set -euo pipefail
cd "$(dirname "$0")/.."
compile() {
  uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
    --no-emit-find-links --no-annotate --custom-compile-command requirements/compile.sh "${@:2}" -o "requirements/$1.txt"
}
compile api --extra api
compile worker-cpu --extra worker --extra cpu
compile local --extra local --group build
compile dev --extra local --group build --group dev
