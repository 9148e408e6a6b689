#!/usr/bin/env bash
# make_root.sh DIR arm64|armhf ENGINE...: a folder with an ARM Python and what a device needs.
#
# For qemu-user: Debian's own packages, unpacked without being installed (no chroot, no binfmt,
# no root), and wheels from the Python package index. Takes half a minute to one; DIR is there in
# full or not at all. ENGINE are requirements such as onnxruntime==1.31.1; PYTHON is one with pip.
set -euo pipefail
target=$(realpath -m "$1") arch=$2 engines=("${@:3}")
[ -d "$target" ] && exit 0
root=$(mktemp -d "$target.XXXXXX")
trap 'rm -rf "$root"' EXIT
site=$root/usr/lib/python3/dist-packages
mkdir -p "$root"/apt/{lists,cache/partial} "$root"/wheels
touch "$root/apt/status"

case $arch in
  arm64)
    packages=(python3 libstdc++6 libgomp1)
    platforms=(manylinux_2_{28,27,17}_aarch64 manylinux2014_aarch64)
    wheels=(numpy msgspec)
    ;;
  armhf) # no wheels of numpy and msgspec; tflite-runtime wants the numpy 1 that Debian has
    packages=(python3 python3-numpy libpython3-dev libstdc++6)
    platforms=(manylinux_2_{36,34,31,17}_armv7l manylinux2014_armv7l)
    wheels=()
    ;;
esac

apt=(apt-get -qq -o APT::Architecture="$arch" -o APT::Architectures="$arch"
  -o Dir::State="$root/apt" -o Dir::State::lists="$root/apt/lists"
  -o Dir::State::status="$root/apt/status" -o Dir::Cache="$root/apt/cache"
  -o Dir::Cache::archives="$root/apt/cache" -o Debug::NoLocking=1 -o APT::Sandbox::User=
  -o Acquire::Retries=3)
"${apt[@]}" update || echo "not every list came; going on with those that did" >&2
"${apt[@]}" install -y --no-install-recommends --download-only "${packages[@]}"
for package in "$root"/apt/cache/*.deb; do
  dpkg-deb -x "$package" "$root"
done

# What tokenizers and LiteRT name beside their engines is for downloads and other tools: left out.
python=${PYTHON:-python3}
pip=("$python" -m pip --disable-pip-version-check download -q --dest "$root/wheels")
version=$(basename "$(ls -d "$root"/usr/lib/python3.[0-9]*)" | sed 's/python//')
binary=(--only-binary=:all: --implementation cp --python-version "$version"
  "${platforms[@]/#/--platform=}")
"${pip[@]}" "${binary[@]}" jinja2 paho-mqtt starlette tomli-w urllib3 uvicorn "${wheels[@]}"
"${pip[@]}" "${binary[@]}" --no-deps tokenizers "${engines[@]}"
for wheel in "$root"/wheels/*.whl; do
  "$python" -m zipfile -e "$wheel" "$site"
done

if [ "$arch" = armhf ]; then
  lib=usr/lib/arm-linux-gnueabihf
  ln -s blas/libblas.so.3 lapack/liblapack.so.3 "$root/$lib" # as their installation would
  "${pip[@]}" --no-deps --no-binary msgspec msgspec
  "${pip[@]}" --no-deps --only-binary=:all: ziglang # a C compiler for every architecture
  mkdir "$root"/{zig,msgspec}
  "$python" -m zipfile -e "$root"/wheels/ziglang-*.whl "$root/zig"
  tar -xzf "$root"/wheels/msgspec-*.tar.gz -C "$root/msgspec" --strip-components 1
  chmod +x "$root/zig/ziglang/zig"
  sources=$(dirname "$(find "$root/msgspec" -name _core.c)")
  cp -r "$sources" "$site/msgspec"
  ZIG_LOCAL_CACHE_DIR=$root/zig/cache ZIG_GLOBAL_CACHE_DIR=$root/zig/cache \
    "$root/zig/ziglang/zig" cc -target arm-linux-gnueabihf.2.36 -mcpu=cortex_a7 -O2 -fPIC -shared \
    -I "$root/usr/include/python$version" -idirafter "$root/usr/include" -w \
    "$sources/_core.c" -o "$site/msgspec/_core.so"
fi

rm -rf "$root"/{apt,wheels,zig,msgspec} "$root"/usr/{include,share}
chmod 755 "$root"
mv -T "$root" "$target" || [ -d "$target" ] # another run was quicker
