#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
#
# container.sh VERSION TARGET: builds the server with Go VERSION in a container and copies it to TARGET, if TARGET or an image
# is missing; says so on its output, and nothing else.
#
#   BASE, RUNTIME_BASE, GOARCH  as in the Dockerfile
#   IMAGE     if not empty, the images stay: IMAGE has the server and nothing else, IMAGE-distribution the distribution as
#             well, IMAGE-build the toolchain
#   RELEASE   what the images are made of; images of another release are made anew
#   DRY_RUN   if not empty, nothing is built
set -eu
version=$1
target=$2
context=$(cd "$(dirname "$0")" && pwd)
image=${IMAGE:-metricstack-go-runtime-metrics-build:$version-$$}
label="metricstack.release=$RELEASE $BASE $RUNTIME_BASE $GOARCH"
container=

is_kept() {
  for suffix in "" -distribution -build; do
    [ "$(docker image inspect --format '{{ index .Config.Labels "metricstack.release" }}' "$IMAGE$suffix" 2> /dev/null)" = "${label#*=}" ] ||
      return 1
  done
}

build() {
  docker build --force-rm --build-arg BASE="$BASE" --build-arg RUNTIME_BASE="$RUNTIME_BASE" --build-arg GO_VERSION="$version" \
    --build-arg GOARCH="$GOARCH" --label "$label" "$@" "$context" >&2
}

if [ -e "$target" ] && { [ -z "$IMAGE" ] || is_kept; }; then
  exit 0
fi
echo "Go $version is built in $BASE"
[ -z "$DRY_RUN" ] || exit 0

clean() {
  rm -f "$target.part"
  [ -z "$container" ] || docker rm --force "$container" > /dev/null
  [ -n "$IMAGE" ] || docker image rm --force "$image-build" > /dev/null 2>&1 || true # a build that failed has left none
}
trap clean EXIT
trap 'exit 1' HUP INT TERM

build --target build --tag "$image-build"
if [ -n "$IMAGE" ]; then
  build --target distribution --tag "$image-distribution"
  build --tag "$image"
  docker image prune --force --filter label=metricstack.release >&2 # the images that these have replaced
fi
mkdir -p "$(dirname "$target")"
container=$(docker create "$image-build" true)
docker cp "$container:/go-runtime-metrics" "$target.part" >&2
mv "$target.part" "$target"
