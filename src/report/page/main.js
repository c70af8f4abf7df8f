// The figures, and what the user does.
const above = report.arena_size - report.bound;
const figures = [
  ["Arena", size(report.arena_size), report.optimal ? "optimal: at its bound" : `${share(above, report.bound)} above its bound`],
  ["Bound", size(report.bound), "for this schedule"],
  ["Without sharing", size(report.unshared), `${share(Math.max(report.unshared - report.arena_size, 0), report.unshared)} saved`],
  ["Weights", size(report.weights_size), `${weights.length} tensors`],
  ["Code", code ? size(code.bytes) : "unknown", code ? `${code.kernels.length} kernels` : "not compiled"],
  ["Steps", String(steps.length), `${buffers.filter((b) => b.region !== null && b.bytes > 0).length} buffers in the arena`],
];
for (const [word, value, more] of figures) {
  const box = make("div"), dd = make("dd", value);
  dd.append(make("small", more)); box.append(make("dt", word), dd); $("figures").append(box);
}
$("facts").textContent = `${report.format}, aligned to ${report.alignment} bytes${code ? `, for ${code.target}` : ""}`;
// One memory at a time.
const memories = report.regions.length > 1 ? report.regions.map((r, i) => {
  const button = make("button", `${r.name} (${size(r.size)})`);
  button.type = "button"; button.onclick = () => openRegion(i); $("regions").append(button);
  return button;
}) : [];
function openRegion(index) {
  region = report.regions[index]; peak = region.peak; placed = inRegion(index);
  memories.forEach((button, i) => { button.ariaPressed = String(i === index); });
  $("h-arena").textContent = `The ${region.name} over time`;
  hidden.clear(); choose(null); describeRegion(); openTable(table); redraw();
}
function describeRegion() {
  $("advice").replaceChildren(); $("legend").replaceChildren();
  $("peak-text").textContent = `${size(peak.bytes)} are taken at ${at(peak.time)}${peak.step === null ? "" : `, ${steps[peak.step].operator} for ${nodes(peak.step)}`}${peak.times > 1 ? ` (and as much at ${peak.times - 1} other times)` : ""}.`;
  for (const line of peak.advice) $("advice").append(make("li", line));
  for (const kind of KINDS.filter((k) => placed.some((i) => buffers[i].kind === k))) {
    const label = make("label"), box = make("input"), swatch = make("i");
    box.type = "checkbox"; box.checked = true; swatch.style.background = `var(--${kind})`;
    box.onchange = () => { if (box.checked) hidden.delete(kind); else hidden.add(kind); redraw(); };
    label.append(box, swatch, kind); $("legend").append(label);
  }
  $("legend").append(make("span", "dashed lines in a box: in place; shaded: windows; red: bound and peak", "quiet"));
}

let matches = [], match = -1;
function search() {
  const word = $("search").value.trim().toLowerCase();
  matches = word ? words.map((text, i) => i).filter((i) => words[i].includes(word)) : [];
  hits = new Set(matches); match = -1;
  $("matches").textContent = word ? `${matches.length} found` : "";
  drawTable(); redraw();
}
function jump(by) {
  if (!matches.length) return;
  match = match < 0 ? (by > 0 ? 0 : matches.length - 1) : (match + by + matches.length) % matches.length;
  $("matches").textContent = `${match + 1} of ${matches.length}`;
  reveal(matches[match]);
}
$("search").oninput = search;
$("search").onkeydown = (e) => {
  if (e.key === "Enter") jump(e.shiftKey ? -1 : 1);
  if (e.key === "Escape") { $("search").value = ""; search(); choose(null); }
};
$("next").onclick = () => jump(1);
$("previous").onclick = () => jump(-1);
$("in").onclick = () => zoom(.5);
$("out").onclick = () => zoom(2);
$("fit").onclick = () => show(0, TIMES);
$("to-peak").onclick = () => { const span = Math.min(TIMES, 40); show(peak.time + .5 - span / 2, peak.time + .5 + span / 2); };
$("theme").onclick = () => {
  const root = document.documentElement, dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark"; redraw();
};

let drag = null;
canvas.onpointerdown = (e) => { drag = { x: e.offsetX, from: view.from, to: view.to, moved: false }; };
canvas.onpointermove = (e) => {
  if (drag && e.buttons && Math.abs(e.offsetX - drag.x) > 3) {
    const by = (drag.x - e.offsetX) / frame().width * (drag.to - drag.from);
    drag.moved = true; show(drag.from + by, drag.to + by);
  }
  hover(e.offsetX, e.offsetY);
};
canvas.onpointerup = (e) => { if (drag && !drag.moved) choose(find(e.offsetX, e.offsetY)); drag = null; };
canvas.onpointerleave = () => { drag = null; leave(); };
canvas.addEventListener("wheel", (e) => { if (e.ctrlKey || e.metaKey) { e.preventDefault(); zoom(Math.exp(e.deltaY / 300), frame().t(e.offsetX)); } }, { passive: false });
const brush = (e) => {
  const box = overview.getBoundingClientRect(), t = (e.offsetX - PAD.left) / (box.width - PAD.left - PAD.right) * TIMES, span = view.to - view.from;
  show(t - span / 2, t + span / 2);
};
overview.onpointerdown = (e) => { overview.setPointerCapture(e.pointerId); brush(e); };
overview.onpointermove = (e) => { if (e.buttons) brush(e); };
canvas.onkeydown = (e) => {
  const keys = {
    ArrowLeft: () => walk(-1), ArrowRight: () => walk(1), ArrowUp: () => climb(1), ArrowDown: () => climb(-1),
    "+": () => zoom(.5), "=": () => zoom(.5), "-": () => zoom(2), 0: () => show(0, TIMES), Home: () => show(0, TIMES), Escape: () => { choose(null); leave(); },
  };
  if (keys[e.key] && !e.ctrlKey && !e.metaKey) { e.preventDefault(); keys[e.key](); }
};
document.addEventListener("keydown", (e) => { if (e.key === "/" && e.target.tagName !== "INPUT") { e.preventDefault(); $("search").focus(); } });
addEventListener("resize", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
openRegion(0);
