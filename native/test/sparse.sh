#!/bin/sh
# Tests build/forkd-sparse; prints TAP.
set -eu
# shellcheck source=native/test/tap.sh
. "$(dirname -- "$0")/tap.sh"
sparse=$(CDPATH='' cd -- "$(dirname -- "$0")/../build" && pwd)/forkd-sparse
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

# put FILE CHARACTER PAGE COUNT writes pages of one character.
put() {
  head -c "$(($4 * 4096))" /dev/zero | tr '\0' "$2" |
    dd of="$1" bs=4096 seek="$3" conv=notrunc status=none
}

# words TABLE prints a table's numbers.
words() { od -An -v -t u8 "$1" | tr -s ' \n' ' ' | sed 's/^ //; s/ $//'; }

# at FILE PAGE prints a page's first character, or 0.
at() { dd if="$1" bs=1 skip="$(($2 * 4096))" count=1 status=none | tr '\0' '0'; }

# refused ARGV... prints whether it failed with words.
refused() { if "$sparse" "$@" >out 2>&1; then echo no; else grep -c '^forkd-sparse: ' out; fi; }

truncate -s 1M file
put file x 3 1
put file y 100 2
check "the extents of a sparse file are counted" "2 12288" "$("$sparse" data file table)"
check "a table has their offsets and lengths" "12288 4096 409600 8192" "$(words table)"
check "a table that exists is left alone" 1 "$(refused data file table)"
check "a whole file is one extent" "1 1048576" "$("$sparse" whole file all)"
check "its table says so" "0 1048576" "$(words all)"

truncate -s 1M base
put base b 0 256
cp base laid
check "what a file holds is laid over another" "2 12288" "$("$sparse" lay file laid)"
check "where it holds nothing, the other stays" "b x b y y b" \
  "$(at laid 2) $(at laid 3) $(at laid 4) $(at laid 100) $(at laid 101) $(at laid 102)"

# The table covers pages 2 to 4, of which only 3 has bytes: the others are zeros in its file.
printf '\000\040\000\000\000\000\000\000\000\060\000\000\000\000\000\000' > wide
cp base applied
check "a table's extents are applied" "1 12288" "$("$sparse" apply file wide applied)"
check "with the zeros in them" "b 0 x 0 b" \
  "$(at applied 1) $(at applied 2) $(at applied 3) $(at applied 4) $(at applied 5)"
check "the size stays" 1048576 "$(stat -c %s applied)"

truncate -s 2M larger
check "a target of another size is refused" 1 "$(refused lay file larger)"
check "for a table too" 1 "$(refused apply file wide larger)"
head -c 10 wide > cut
check "a table that is cut off is refused" 1 "$(refused apply file cut applied)"
printf '\001\040\000\000\000\000\000\000\000\060\000\000\000\000\000\000' > odd
check "an extent that is not of pages is refused" 1 "$(refused apply file odd applied)"
printf '\000\000\020\000\000\000\000\000\000\020\000\000\000\000\000\000' > beyond
check "an extent outside is refused" 1 "$(refused apply file beyond applied)"
cat wide wide > twice
check "extents that overlap are refused" 1 "$(refused apply file twice applied)"
truncate -s 1000 ragged
check "a file that is not of pages is refused" 1 "$(refused data ragged other)"
ln -s file link
check "a link is not followed" 1 "$(refused data link other)"
check "wrong usage is refused" 1 "$(if "$sparse" dance 2>/dev/null; then echo 0; else echo $?; fi)"

echo "1..$tests"
exit $failed
