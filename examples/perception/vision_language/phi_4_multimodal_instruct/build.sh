#!/usr/bin/env bash
# Builds the image with vLLM; without Docker, an environment on this machine with the cpu engine.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if has_docker; then
  exec "$ROOT/build.sh" worker
fi
say "No Docker engine answers: making an environment in $ROOT/.venv instead (pip install '.[gpu]' there adds vLLM)."
exec make -C "$ROOT" .venv/local
