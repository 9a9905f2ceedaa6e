#!/bin/sh
# Three steps, of which each starts when the one before it has succeeded: look, count in ten blocks, add up.
# Should one fail, those behind it are cancelled with the reason, and what was held for them is free.
#
#     sh examples/pipeline.sh
set -eu
cd "$(dirname "$0")"
gridx=${GRIDX:-gridx}

look=$($gridx submit hello.py --name look --quiet)
count=$($gridx map primes.py --range 0-9 --name count --after "$look" --retries 2 --detach --quiet)
$gridx submit --name done --after-any "$count" -c 'print("all blocks were counted")' --quiet
$gridx wait "$count"
$gridx output "$count" --all | awk '{sum += $NF} END {print sum " primes"}'
