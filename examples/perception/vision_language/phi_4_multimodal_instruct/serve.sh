#!/usr/bin/env bash
# Serves OpenAI's API on PORT (8000) until Ctrl-C: vLLM's own server, or without a GPU the service on its cpu engine.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if has_docker; then
  in_container --publish "${HOST:-127.0.0.1}:$PORT:$PORT" --env PHI4_HOST=0.0.0.0 -- serve
fi
# The original's HOST, for a server without a container.
export PHI4_HOST=${PHI4_HOST:-${HOST:-127.0.0.1}}
if command -v nvidia-smi >/dev/null; then
  say "No Docker engine answers: running \`phi4 serve\` on this machine."
  on_this_machine serve
fi
say "No Docker engine and no GPU: running \`phi4 up\`, the same API on the cpu engine, on this machine."
on_this_machine up
