# What the scripts beside this one share; sourced by them.

EXAMPLE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$EXAMPLE/../../../.." && pwd)
# Where relative paths on the command line lead: cvl says where it was called.
WORK=${CVL_WORK_DIR:-${WORK_DIR:-$PWD}}
IMAGE=${CVL_IMAGE:-${PHI4_IMAGE:-phi4-worker}}
export PHI4_MAX_MODEL_LEN=${PHI4_MAX_MODEL_LEN:-16384} PORT=${PORT:-8000} PHI4_SERVED_NAME=${PHI4_SERVED_NAME:-phi-4-multimodal}

has_docker() {
  command -v docker >/dev/null && docker info >/dev/null 2>&1
}

# in_container OPTIONS… -- WORDS…: `phi4 WORDS` in the image, with the settings, the user and the models of this shell.
in_container() {
  local options=()
  while [[ $1 != -- ]]; do
    options+=("$1")
    shift
  done
  shift
  for name in PHI4_MAX_MODEL_LEN PORT PHI4_SERVED_NAME TENSOR_PARALLEL_SIZE PHI4_EXTRA_SERVE_ARGS PHI4_MODEL_ID \
    PHI4_MODEL_REVISION PHI4_ENGINE HF_TOKEN; do
    [[ -z ${!name:-} ]] || options+=(--env "$name")
  done
  local models=${HF_HOME:-$HOME/.cache/huggingface}
  mkdir -p "$models"
  exec docker run --rm --gpus all --shm-size 8g ${CVL_CONTAINER_NAME:+--name "$CVL_CONTAINER_NAME"} \
    --user "$(id -u):$(id -g)" --volume "$models:/models" "${options[@]}" --entrypoint python "$IMAGE" -m cli "$@"
}

# on_this_machine WORDS…: `phi4 WORDS` in the checkout's own environment, which is made if there is none.
on_this_machine() {
  local phi4=$ROOT/.venv/bin/phi4
  if [[ ! -x $phi4 ]]; then
    phi4=$(command -v phi4) || { make -C "$ROOT" .venv/local >&2 && phi4=$ROOT/.venv/bin/phi4; }
  fi
  exec "$phi4" "$@"
}

say() {
  echo "$*" >&2
}
