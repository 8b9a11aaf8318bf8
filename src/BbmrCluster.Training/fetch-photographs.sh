#!/bin/sh
# Fetches the photographs that the shipped weights were trained on, out of Debian packages; installs nothing and needs no root.
#
#   fetch-photographs.sh [--small] FOLDER
#
# FOLDER gets train/, val/ and photos.tsv, as `bbmr train --photos FOLDER` reads them. --small leaves out the one package of
# 400 MB (11 photographs). A second run fetches only what is missing. Which picture lies where, how far each is shrunk and
# what its SHA-256 is stands in photographs.tsv beside this script; licences in docs/training.md.
# DEBIAN_MIRROR names another archive than the machine's own. Needs apt-get, dpkg-deb, od, awk and sha256sum.
set -eu

small=no
if [ "${1:-}" = --small ]; then small=yes; shift; fi
if [ $# -ne 1 ] || [ "${1#-}" != "$1" ]; then echo "usage: $0 [--small] FOLDER" >&2; exit 2; fi
for tool in apt-get dpkg-deb od awk sha256sum; do
    command -v "$tool" > /dev/null || { echo "$tool is missing: this needs Debian or a relative of it" >&2; exit 2; }
done

table=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)/photographs.tsv
mkdir -p "$1/train" "$1/val"
target=$(CDPATH='' cd -- "$1" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT INT TERM
tab=$(printf '\t')

# The archive that the machine uses, asked of apt.
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2> /dev/null | grep '/debian/\{0,1\}$' | head -n 1)}
mirror=${mirror:-http://deb.debian.org/debian}

has() { # file sha256
    [ -f "$target/$1" ] && [ "$(sha256sum < "$target/$1" | cut -d ' ' -f 1)" = "$2" ]
}

# apt-get with lists and a cache of its own, for one suite.
apt_of() { # suite arguments...
    suite=$1; shift
    state=$scratch/apt-$suite
    if [ ! -d "$state" ]; then
        mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$state/parts"
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" > "$state/sources.list"
        : > "$state/status"
        if ! apt_run -q=2 update; then echo "$suite: its package list cannot be read from $mirror" >&2; fi
    fi
    apt_run "$@"
}

apt_run() {
    apt-get -o "Dir::Etc::sourcelist=$state/sources.list" -o "Dir::Etc::sourceparts=$state/parts" -o "Dir::State::lists=$state/lists" \
        -o "Dir::State::status=$state/status" -o "Dir::Cache=$state/cache" -o APT::Sandbox::User= -o Acquire::Languages=none -o Acquire::Retries=3 "$@"
}

# The largest entry of an EET archive (.edj): its table follows the 12 bytes of the head, 24 bytes an entry, all big-endian;
# an entry begins with offset and size.
largest_of_edj() { # archive
    count=$(od -An -v -tu1 -j4 -N4 "$1" | awk '{ print (($1 * 256 + $2) * 256 + $3) * 256 + $4 }')
    place=$(od -An -v -tu1 -w24 -j12 -N$((24 * count)) "$1" | awk '
        { offset = (($1 * 256 + $2) * 256 + $3) * 256 + $4; size = (($5 * 256 + $6) * 256 + $7) * 256 + $8
          if (size > most) { most = size; from = offset } }
        END { printf "%d %d", from + 1, most }')
    tail -c "+${place% *}" "$1" | head -c "${place#* }"
}

fetched=0 kept=0 failed=0
list=$scratch/list
tail -n +2 "$table" > "$list"
for pair in $(awk -F '\t' '{ print $4 "/" $5 }' "$list" | sort -u); do
    suite=${pair%/*} package=${pair#*/}
    rows=$scratch/rows
    awk -F '\t' -v s="$suite" -v p="$package" '$4 == s && $5 == p' "$list" > "$rows"
    missing=no
    while IFS=$tab read -r _ file _ _ _ _ sum; do has "$file" "$sum" || missing=yes; done < "$rows"
    if [ "$missing" = no ]; then kept=$((kept + $(wc -l < "$rows"))); continue; fi
    if [ "$small" = yes ] && [ "$pair" = bookworm/enlightenment-data ]; then continue; fi

    echo "$package ($suite)"
    work=$scratch/work
    rm -rf "$work"; mkdir -p "$work/unpacked"
    if ! (cd "$work" && apt_of "$suite" -q=2 download "$package") || ! dpkg-deb -x "$work"/*.deb "$work/unpacked"; then
        echo "$package: not to be had from $suite" >&2
        failed=$((failed + $(wc -l < "$rows"))); continue
    fi
    while IFS=$tab read -r _ file _ _ _ path sum; do
        if has "$file" "$sum"; then kept=$((kept + 1)); continue; fi
        case $path in
            *.edj) largest_of_edj "$work/unpacked/$path" > "$target/$file.part" ;;
            *) cp "$work/unpacked/$path" "$target/$file.part" ;;
        esac || true
        mv "$target/$file.part" "$target/$file" 2> /dev/null || true
        if has "$file" "$sum"; then
            fetched=$((fetched + 1))
        else
            echo "$file: not the picture that was trained on ($path of $package in $suite)" >&2
            rm -f "$target/$file"; failed=$((failed + 1))
        fi
    done < "$rows"
done

# The list names what is there.
head -n 1 "$table" | cut -f 1-5 > "$target/photos.tsv"
while IFS=$tab read -r split file divisor suite package _; do
    if [ -f "$target/$file" ]; then printf '%s\t%s\t%s\t%s\t%s\n' "$split" "$file" "$divisor" "$suite" "$package" >> "$target/photos.tsv"; fi
done < "$list"
echo "$fetched fetched, $kept already there, $failed failed; $(($(wc -l < "$target/photos.tsv") - 1)) of $(wc -l < "$list") photographs in $target"
[ "$failed" = 0 ]
