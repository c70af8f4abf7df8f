// Tables, sorted by the column that is asked for.
const weights = buffers.map((b, i) => i).filter((i) => buffers[i].kind === "constant");
const code = report.code;
const TABLES = {
  "At the peak": { columns: ["tensor", "kind", "type", "bytes#", "share#", "alive", "the step"], sort: 3,
    get rows() { return peak.holders.map((h) => { const b = buffers[h.buffer]; return { buffer: h.buffer, cells: [b.name, b.kind, type(b), h.bytes, [h.bytes, share(h.bytes, peak.bytes)], life(b), h.used ? "uses it" : "waits"] }; }); } },
  Buffers: { columns: ["id", "tensor", "kind", "type", "bytes#", "offset#", "alive", "contents#"], sort: 4,
    get rows() { return placed.map((i) => { const b = buffers[i]; return { buffer: i, cells: [[i, b.id], b.name, b.kind, type(b), b.bytes, [b.offset, b.offset.toLocaleString("en")], [first(b), life(b)], [b.contents.length, b.contents.length]] }; }); } },
  Steps: { columns: ["step", "operator", "nodes", "RAM live#", "RAM touched#", "weights#", "kernel"], sort: 3,
    rows: steps.map((s, i) => ({ time: i + 1, cells: [[i, s.id], s.operator, s.nodes.join(" + "), s.live, s.touched, s.weights, s.kernel === null || !code ? "" : code.kernels[s.kernel].name] })) },
  Operators: { columns: ["operator", "steps#", "RAM at most#", "RAM touched#", "weights#", "code#"], sort: 4,
    rows: report.operators.map((o) => ({ cells: [o.operator, [o.steps, o.steps], o.live, o.touched, o.weights, o.code === null ? "" : o.code] })) },
  Kernels: { columns: ["kernel", "bytes#", "share#", "steps#", "called by"], sort: 1,
    rows: code ? [...code.kernels.map((k) => ({ cells: [k.name, k.bytes, [k.bytes, share(k.bytes, code.bytes)], [k.steps.length, k.steps.length], some(k.steps.map((s) => steps[s].id), 12)] })),
      { cells: ["(the calls)", code.calls, [code.calls, share(code.calls, code.bytes)], [0, ""], ""] }] : [] },
  Weights: { columns: ["tensor", "type", "bytes#", "share#", "read by"], sort: 2,
    rows: weights.map((i) => { const b = buffers[i]; return { buffer: i, cells: [b.name, type(b), b.bytes, [b.bytes, share(b.bytes, report.weights_size)], some(readers(b).map(step), 3)] }; }) },
};
const ROWS = 200;
let table = "At the peak", all = false;
const key = (cell) => Array.isArray(cell) ? cell[0] : cell;
const text = (cell) => Array.isArray(cell) ? String(cell[1]) : typeof cell === "number" ? size(cell) : cell;
function drawTable() {
  const { columns, rows, sort, up } = TABLES[table], panel = $("panel");
  if (!rows.length) return panel.replaceChildren(make("p", table === "Kernels" && !code ? "There are no sizes of code: the model was not compiled." : "There is nothing.", "quiet"));
  const order = [...rows].sort((a, b) => { const [x, y] = [key(a.cells[sort]), key(b.cells[sort])]; return (x < y ? -1 : x > y ? 1 : 0) * (up ? 1 : -1); });
  const element = make("table"), head = make("tr"), body = make("tbody");
  columns.forEach((name, i) => {
    const cell = make("th", undefined, name.endsWith("#") ? "n" : ""), button = make("button", name.replace("#", "") + (i === sort ? up ? " ▲" : " ▼" : ""));
    cell.scope = "col";
    cell.ariaSort = i === sort ? up ? "ascending" : "descending" : "none";
    button.type = "button";
    button.onclick = () => { const t = TABLES[table]; t.up = t.sort === i ? !t.up : !name.endsWith("#"); t.sort = i; drawTable(); panel.querySelectorAll("th button")[i].focus(); };
    cell.append(button); head.append(cell);
  });
  for (const row of order.slice(0, all ? order.length : ROWS)) {
    const line = make("tr", undefined, row.buffer !== undefined && hits.has(row.buffer) ? "hit" : "");
    row.cells.forEach((cell, i) => line.append(make("td", text(cell), columns[i].endsWith("#") ? "n" : "")));
    const go = row.buffer !== undefined ? () => reveal(row.buffer) : row.time !== undefined ? () => { time = row.time; walk(0); } : null;
    if (go) { line.className += " link"; line.tabIndex = 0; line.onclick = () => { go(); $("h-arena").scrollIntoView(); }; line.onkeydown = (e) => { if (e.key === "Enter") line.onclick(); }; }
    body.append(line);
  }
  const top = make("thead"); top.append(head); element.append(top, body);
  panel.replaceChildren(element);
  if (!all && order.length > ROWS) {
    const more = make("button", `Show all ${order.length}`);
    more.type = "button"; more.onclick = () => { all = true; drawTable(); }; panel.append(more);
  }
}
const tabs = Object.keys(TABLES).map((name, i, names) => {
  const tab = make("button", name);
  Object.assign(tab, { type: "button", role: "tab", id: `tab-${i}` });
  tab.setAttribute("aria-controls", "panel");
  tab.onclick = () => openTable(name);
  tab.onkeydown = (e) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
    if (by) { const to = (i + by + names.length) % names.length; openTable(names[to]); tabs[to].focus(); }
  };
  $("tabs").append(tab);
  return tab;
});
function openTable(name) {
  table = name; all = false;
  tabs.forEach((tab) => { const on = tab.textContent === name; tab.ariaSelected = String(on); tab.tabIndex = on ? 0 : -1; if (on) $("panel").setAttribute("aria-labelledby", tab.id); });
  drawTable();
}
