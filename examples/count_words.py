"""Files in and out: reads a folder of texts that goes along, leaves a table and a report in out/.

    gridx run --input examples/texts -d results examples/count_words.py -- examples/texts

What `examples/texts/.gridxignore` names stays at home.
"""

import csv
import sys
from collections import Counter
from pathlib import Path

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "texts")
words = Counter()
for path in sorted(folder.rglob("*.txt")):
    found = path.read_text(encoding="utf-8").lower().split()
    print(f"{path.name}: {len(found)} words")
    words.update(word.strip(".,;:!?") for word in found)

Path("out/reports").mkdir(parents=True, exist_ok=True)
with open("out/words.csv", "w", newline="", encoding="utf-8") as file:
    table = csv.writer(file)
    table.writerow(("word", "count"))
    table.writerows(sorted(words.items(), key=lambda pair: (-pair[1], pair[0])))
most = ", ".join(word for word, _ in words.most_common(3))
Path("out/reports/summary.txt").write_text(f"{sum(words.values())} words, mostly: {most}\n", encoding="utf-8")
