# The ten most common words of some texts, in bash:
#   gridx run --input examples/texts examples/common_words.sh -- examples/texts
set -euo pipefail

cat "${1:-texts}"/*.txt | tr -cs '[:alpha:]' '\n' | tr '[:upper:]' '[:lower:]' | grep . |
  sort | uniq -c | sort -k1,1nr -k2 >out/words.txt
head -n 10 out/words.txt || true
