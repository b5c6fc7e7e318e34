#!/usr/bin/env bash
# Asks once: predict.sh --image a.jpg --prompt "What is this?"   (`phi4 predict --help` lists the rest)
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if has_docker; then
  in_container --volume "$WORK:/mnt/cvl/workspace" --workdir /mnt/cvl/workspace -- predict "$@"
fi
say "No Docker engine answers: running \`phi4 predict\` on this machine."
cd "$WORK"
on_this_machine predict "$@"
