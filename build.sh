#!/usr/bin/env bash
# Builds the service's images from gpu.Dockerfile: all of them, or those named.
#   ./build.sh                      phi4-api, phi4-worker-cpu and phi4-worker (vLLM on CUDA)
#   ./build.sh api worker-cpu       what a machine without a GPU needs
#   TAG=1.2 REGISTRY=images.example/me/ ./build.sh    names them images.example/me/phi4-api:1.2 …
#   DOCKER=podman ./build.sh        with another builder that takes Docker's commands
set -euo pipefail
cd "$(dirname "$0")"

docker=${DOCKER:-docker}
tag=${TAG:-latest}
registry=${REGISTRY:-}
known=(api worker-cpu worker)

fail() {
  echo "build.sh: $*" >&2
  exit 1
}

for target in "$@"; do
  [[ " ${known[*]} " == *" $target "* ]] || fail "there is no image '$target'; there are: ${known[*]}"
done
command -v "$docker" >/dev/null || fail "'$docker' is not installed. Without Docker, \`make up\` runs the service."
"$docker" info >/dev/null 2>&1 || fail "'$docker' is installed, but no engine answers it: start it, or join its group. \`$docker info\` says more."

targets=("$@")
[[ $# -gt 0 ]] || targets=("${known[@]}")
for target in "${targets[@]}"; do
  image="${registry}phi4-$target:$tag"
  echo "==> $image (stage '$target' of gpu.Dockerfile)"
  "$docker" build --file gpu.Dockerfile --target "$target" --tag "$image" . \
    || fail "$image could not be built; where no registry is reachable, deploy/local-base-images.sh makes base images first."
done
echo "built: ${targets[*]/#/${registry}phi4-} ($tag)"
