// The report, and words for it.
const report = JSON.parse(document.getElementById("report").textContent);
const { buffers, steps } = report;
let region = report.regions[0];
let peak = region.peak;
const TIMES = region.live.length;
const KINDS = ["input", "parameter", "output", "state", "temporary", "constant"];
const $ = (id) => document.getElementById(id);
const make = (tag, text, className) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
};
const size = (n) => n < 1e4 ? `${n} B` : n < 1e6 ? `${(n / 1e3).toFixed(1)} kB` : n < 1e9 ? `${(n / 1e6).toFixed(2)} MB` : `${(n / 1e9).toFixed(2)} GB`;
const share = (part, whole) => `${(100 * part / Math.max(whole, 1)).toFixed(1)} %`;
const at = (time) => time === 0 ? "start" : time > steps.length ? "end" : steps[time - 1].id;
const first = (b) => b.first ?? 0;
const last = (b) => b.last ?? TIMES - 1;
const life = (b) => first(b) === 0 && last(b) === TIMES - 1 ? "always" : `${at(first(b))} to ${at(last(b))}`;
const type = (t) => t.dtype ? `${t.dtype}[${t.shape.join(", ")}]` : "";
const nodes = (s) => steps[s].nodes.join(" + ") || steps[s].operator;
const step = (s) => `${steps[s].id} ${nodes(s)}`;
const some = (list, most) => list.length > most ? `${list.slice(0, most).join(", ")} and ${list.length - most} more` : list.join(", ");
const unique = (list) => [...new Set(list)].sort((a, b) => a - b);
const writers = (b) => unique(b.contents.map((c) => c.writer).filter((w) => w !== null));
const readers = (b) => unique(b.contents.flatMap((c) => c.readers));

// What is found under a word: the names of the tensor and of the nodes that write or read it.
const words = buffers.map((b) => [b.id, b.name, ...writers(b).map(step), ...readers(b).map(step)].join("\n").toLowerCase());

// Name, and pairs of words, that say all about a buffer.
function about(b) {
  const lines = [["type", `${type(b)}, ${b.kind}`], ["bytes", `${b.bytes.toLocaleString("en")} (${size(b.bytes)})`]];
  if (b.offset !== null) lines.push(["offset", b.offset.toLocaleString("en")]);
  if (b.region !== null) lines.push(["alive", life(b)]);
  if (writers(b).length) lines.push(["written by", some(writers(b).map(step), 4)]);
  if (readers(b).length) lines.push(["read by", some(readers(b).map(step), 4)]);
  const inside = b.contents.filter((c) => c.in_place_of !== null).length;
  const windows = b.contents.filter((c) => c.strided).length;
  if (inside) lines.push(["in place", `${inside} of its ${b.contents.length} contents`]);
  if (windows) lines.push(["windows", `${windows} of its ${b.contents.length} contents`]);
  return lines;
}
function describe(target, b) {
  target.replaceChildren(make("b", `${b.name || b.id} (${b.id})`));
  const list = make("dl");
  for (const [word, text] of about(b)) list.append(make("dt", word), make("dd", text));
  target.append(list);
}
