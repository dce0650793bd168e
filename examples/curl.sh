#!/usr/bin/env bash
# A batch of two rows with curl: examples/curl.sh [URL]. SOFTXENT_KEY is the key, if one is needed.
set -euo pipefail

url=${1:-http://127.0.0.1:8000}

answer=$(curl --silent --show-error --fail-with-body "$url/v1/cross_entropy?reduction=mean" \
    --header 'Content-Type: application/json' \
    ${SOFTXENT_KEY:+--header "Authorization: Bearer $SOFTXENT_KEY"} \
    --data '{"logits": [[2.0, 1.0, 0.1], [0.5, 2.5, 0.3]], "labels": [0, 2]}')
echo "$answer"

# Every row of a gradient sums to 0: [[a,b,c],[d,e,f]], one row a line, added up.
grep -o '"gradient": *\[\[[^"]*\]\]' <<<"$answer" | grep -o '\[[^][]*\]' | tr -d '[]' | awk -F, '
    { sum = 0; for (i = 1; i <= NF; i++) sum += $i; rows++; print "row sum", sum }
    sum > 1e-6 || sum < -1e-6 { wrong = 1 }
    END { exit wrong || rows != 2 }'
