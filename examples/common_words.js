// The ten most common words of some texts, in JavaScript; needs a worker with a Node runtime:
//   gridx run --input examples/texts examples/common_words.js -- examples/texts
const fs = require("fs");
const path = require("path");

const folder = process.argv[2] || "texts";
const counts = new Map();
for (const name of fs.readdirSync(folder).filter((name) => name.endsWith(".txt"))) {
  const text = fs.readFileSync(path.join(folder, name), "utf-8").toLowerCase();
  for (const word of text.match(/[a-z]+/g) || []) counts.set(word, (counts.get(word) || 0) + 1);
}
const words = [...counts].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1));
for (const [word, count] of words.slice(0, 10)) console.log(String(count).padStart(7), word);
fs.writeFileSync("out/words.json", JSON.stringify(Object.fromEntries(words), null, 1));
