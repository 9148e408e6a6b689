#!/usr/bin/env bash
# make_root.sh DIR: a folder with an arm64 Python, onnxruntime and what edge_sdk needs, for qemu-user.
#
# Debian's own packages, unpacked without being installed (no chroot, no binfmt, no root), and
# wheels from the Python package index. Takes about a minute; does nothing where DIR is complete.
set -euo pipefail
root=$(realpath -m "$1")
[ -e "$root/.complete" ] && exit 0
rm -rf "$root"
mkdir -p "$root"/apt/{lists,cache/partial} "$root"/wheels
touch "$root/apt/status"

apt=(apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64
  -o Dir::State="$root/apt" -o Dir::State::lists="$root/apt/lists"
  -o Dir::State::status="$root/apt/status" -o Dir::Cache="$root/apt/cache"
  -o Dir::Cache::archives="$root/apt/cache" -o Debug::NoLocking=1 -o APT::Sandbox::User=)
"${apt[@]}" update
"${apt[@]}" install -y --no-install-recommends --download-only python3 libstdc++6 libgomp1
for package in "$root"/apt/cache/*.deb; do
  dpkg-deb -x "$package" "$root"
done

version=$(basename "$(ls -d "$root"/usr/lib/python3.[0-9]*)" | sed 's/python//')
python3 -m pip download -q --dest "$root/wheels" --only-binary=:all: --implementation cp \
  --python-version "$version" --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
  --platform manylinux2014_aarch64 --platform manylinux_2_17_aarch64 \
  "onnxruntime==$2" numpy msgspec
for wheel in "$root"/wheels/*.whl; do
  python3 -m zipfile -e "$wheel" "$root/usr/lib/python3/dist-packages"
done

rm -rf "$root/apt" "$root/wheels"
mkdir -p "$root/proc"
touch "$root/.complete"
