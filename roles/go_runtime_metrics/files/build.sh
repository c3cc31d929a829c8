#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
#
# build.sh VERSION [TARGET]: builds the server beside it with Go VERSION, such as 1.24, into TARGET, or leaves no TARGET.
#
# Takes the toolchain that is there, or fetches the distribution's package, from its backports if need be. Fetched and
# unpacked beside TARGET, not installed: that needs neither root nor the package manager's lock, and nothing stays behind.
#
#   GOARCH         architecture to build for; this machine's if empty
#   GO_PLACE       what this machine is called when Go is not to be had on it; its distribution if empty
#   GO_TOOLCHAINS  directory where a fetched toolchain stays; without TARGET, putting it there is all that is done
set -eu
# The service executes it as a user of its own, whatever the umask of who builds.
umask 022
version=$1
target=${2-}
source=$(cd "$(dirname "$0")" && pwd)/server

fail() {
  echo "build.sh: $*" >&2
  exit 1
}

# Not in /tmp, which may be small or forbid execution.
parent=${target:+$(dirname "$target")}
parent=${parent:-$GO_TOOLCHAINS}
mkdir -p "$parent"
work=$(mktemp -d "$parent/.build.XXXXXX")
trap 'rm -rf "$work" "$target.part"' EXIT
trap 'exit 1' HUP INT TERM
chmod 755 "$work" # apt fetches as a user of its own
toolchains=${GO_TOOLCHAINS:-$work}

# What is set elsewhere must not decide what is built here, and Go must not leave its files in anybody's home.
unset GOROOT GOEXPERIMENT GODEBUG
export CGO_ENABLED=0 GOTOOLCHAIN=local GOPROXY=off GOENV=off GOFLAGS='-mod=mod -trimpath -buildvcs=false' GOOS=linux
export HOME="$work" GOPATH="$work/path" GOCACHE="$work/cache" GOTMPDIR="$work"

find_go() {
  for go in "$toolchains/usr/lib/go-$version/bin/go" "/usr/lib/go-$version/bin/go" "$(command -v go || true)"; do
    [ -x "$go" ] || continue
    case $("$go" env GOVERSION 2> /dev/null || true) in
      "go$version" | "go$version."* | "go$version"[a-z]*) return ;;
    esac
  done
  return 1
}

# apt with lists and a cache of its own.
apt() {
  command=$1
  shift
  "$command" --quiet -o Dir::State::Lists="$work/apt/lists" -o Dir::Cache="$work/apt/cache" \
    -o Dir::Etc::SourceParts="$work/apt/sources" "$@" 2>> "$work/apt/messages"
}

is_packaged() {
  [ -n "$(apt apt-cache search --names-only "^golang-$version-go\$")" ]
}

# On the mirror that the machine's own sources name.
add_backports() {
  # shellcheck disable=SC2016 # apt replaces what looks like commands
  apt apt-get indextargets --format '$(ORIGIN) $(LABEL) $(CODENAME) $(REPO_URI) $(COMPONENT)' 'Created-By: Packages' |
    awk '$1 == $2 && $3 !~ /-/ && !seen[$3, $5]++ {print tolower($1), $3, $4, $5}' |
    while read -r distribution codename mirror component; do
      keyring=/usr/share/keyrings/$distribution-archive-keyring.gpg
      [ ! -e "$keyring" ] || mirror="[signed-by=$keyring] $mirror"
      echo "deb $mirror $codename-backports $component"
    done > "$work/apt/sources/backports.list"
}

fetch_go() {
  here=$(sed -n 's/^PRETTY_NAME="\(.*\)"$/\1/p' /etc/os-release)
  here=${GO_PLACE:+$GO_PLACE, }$here
  other=$(go env GOVERSION 2> /dev/null || true)
  missing="Go $version is not to be had on $here: /usr/lib/go-$version is not there, the path has ${other:-no go}"
  if ! command -v apt-get > /dev/null || ! command -v dpkg-deb > /dev/null; then
    fail "$missing, and there is no apt-get to fetch it with. Choose another version, or build where it is."
  fi
  mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial" "$work/apt/sources" "$work/packages"
  [ "$(id -u)" != 0 ] || chown _apt "$work/packages"
  # What the machine has fetched already need not be fetched again.
  cp /var/lib/apt/lists/*_* "$work/apt/lists" 2> /dev/null || true
  cp /etc/apt/sources.list.d/* "$work/apt/sources" 2> /dev/null || true
  # Other people's sources may fail; what counts is whether the package is there.
  apt apt-get update > /dev/null || true
  if ! is_packaged; then
    add_backports
    apt apt-get update > /dev/null || true
  fi
  if ! is_packaged; then
    packaged=$(apt apt-cache search --names-only '^golang-1[.][0-9]+-go$' | sed 's/^golang-\([0-9.]*\)-go .*/\1/' | sort -V | xargs)
    complaints=$(grep '^E: ' "$work/apt/messages" | sort -u | xargs || true)
    fail "$missing, and the distribution packages${packaged:+ only} ${packaged:-no Go at all} (backports included)." \
      "Choose one of these versions, or build where Go $version is.${complaints:+ apt says: $complaints}"
  fi
  (cd "$work/packages" && apt apt-get download "golang-$version-go" "golang-$version-src" > /dev/null) ||
    fail "Go $version could not be fetched: $(tail -n 3 "$work/apt/messages" | xargs)"
  for package in "$work"/packages/*.deb; do
    dpkg-deb --extract "$package" "$toolchains"
  done
  find_go || fail "the package golang-$version-go of $here holds no Go $version that works"
}

find_go || fetch_go
[ -n "$target" ] || exit 0
cd "$source"
"$go" build -ldflags='-s -w' -o "$target.part" .
chmod 755 "$target.part"
mv "$target.part" "$target"
