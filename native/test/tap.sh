# Checks for scripts that print TAP; sourced.
tests=0
failed=0

# check NAME EXPECTED ACTUAL
check() {
  tests=$((tests + 1))
  if [ "$2" = "$3" ]; then echo "ok $tests - $1"
  else
    failed=1
    echo "not ok $tests - $1: expected '$2', got '$3'"
  fi
}
