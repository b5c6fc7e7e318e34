#!/usr/bin/env bash
# Makes stand-ins for the base images of gpu.Dockerfile and docker-compose.yml out of Debian packages, for machines that reach a
# Debian mirror and no image registry: python:3.11-slim-bookworm, and valkey/valkey:8.1-bookworm, which is Debian's Redis 7
# under Valkey's names. There is none for python:3.12 (Debian 12 has 3.11 only), so the vLLM image needs a registry.
#   sudo deploy/local-base-images.sh                  both, imported into Docker
#   sudo deploy/local-base-images.sh --into FOLDER    as FOLDER/python.tar and FOLDER/valkey.tar, without Docker
#   DEBIAN_MIRROR=http://…/debian                     another mirror
set -euo pipefail

mirror=${DEBIAN_MIRROR:-}  # debootstrap knows one
into=
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
  echo "local-base-images.sh: $*" >&2
  exit 1
}

case ${1:-} in
  '') ;;
  --into) into=${2:?--into needs a folder} && mkdir -p "$into" ;;
  *) fail "unknown option '$1'; there is --into FOLDER" ;;
esac
command -v debootstrap >/dev/null || fail "debootstrap is not installed (apt-get install debootstrap)."
[[ $(id -u) -eq 0 ]] || fail "debootstrap must be run as root: sudo $0"
[[ -n $into ]] || docker info >/dev/null 2>&1 || fail "no Docker engine answers; --into FOLDER makes tar files without one."

# bootstrap NAME PACKAGES: a small Debian 12 with these packages.
bootstrap() {
  echo "==> $1: Debian 12 with ${2//,/, }"
  debootstrap --variant=minbase --include="$2" bookworm "$work/$1" ${mirror:+"$mirror"} >"$work/$1.log" 2>&1 \
    || { tail -n 5 "$work/$1.log" >&2; fail "debootstrap failed; its last lines are above."; }
  rm -rf "$work/$1"/var/cache/apt/* "$work/$1"/var/lib/apt/lists/*
}

# hand_over NAME IMAGE CHANGES…: as an image, or as a tar file.
hand_over() {
  local name=$1 image=$2 changes=()
  shift 2
  for change in "$@"; do changes+=(--change "$change"); done
  if [[ -n $into ]]; then
    tar -C "$work/$name" -cf "$into/$name.tar" .
    echo "    $into/$name.tar; docker import ${changes[*]@Q} $name.tar $image"
  else
    tar -C "$work/$name" -c . | docker import "${changes[@]}" - "$image"
  fi
}

bootstrap python ca-certificates,python3,python3-venv,python3-pip
ln -s /usr/bin/python3 "$work/python/usr/local/bin/python"
ln -s /usr/bin/pip3 "$work/python/usr/local/bin/pip"
hand_over python python:3.11-slim-bookworm 'ENV LANG=C.UTF-8' 'CMD ["python"]'

bootstrap valkey redis-server
for name in server cli benchmark; do ln -s "/usr/bin/redis-$name" "$work/valkey/usr/local/bin/valkey-$name"; done
mkdir -p "$work/valkey/data"
hand_over valkey valkey/valkey:8.1-bookworm 'WORKDIR /data' 'VOLUME /data' 'EXPOSE 6379' 'CMD ["valkey-server"]'
