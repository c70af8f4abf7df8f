// The arena over time, and the overview under it.
const canvas = $("arena"), overview = $("overview"), tip = $("tip");
const inRegion = (r) => buffers.map((b, i) => i).filter((i) => buffers[i].region === r && buffers[i].bytes > 0).sort((a, b) => first(buffers[a]) - first(buffers[b]));
let placed = inRegion(0);
const hidden = new Set();
const view = { from: 0, to: TIMES };
let hits = new Set(), hovered = null, chosen = null, time = null, waiting = false;
const PAD = { left: 66, right: 12, top: 14, between: 30, curve: 92, bottom: 26 };

function fitted(element) {
  const ratio = devicePixelRatio || 1, box = element.getBoundingClientRect();
  const [w, h] = [Math.round(box.width * ratio), Math.round(box.height * ratio)];
  if (element.width !== w || element.height !== h) Object.assign(element, { width: w, height: h });
  const g = element.getContext("2d");
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, box.width, box.height);
  return [g, box.width, box.height];
}
const frame = () => {
  const box = canvas.getBoundingClientRect();
  const width = box.width - PAD.left - PAD.right;
  const high = box.height - PAD.top - PAD.between - PAD.curve - PAD.bottom;
  const top = Math.max(region.size, 1);
  return {
    width, high, w: box.width, h: box.height,
    x: (t) => PAD.left + width * (t - view.from) / (view.to - view.from),
    t: (x) => view.from + (x - PAD.left) / width * (view.to - view.from),
    y: (a) => PAD.top + high * (1 - a / top),
    level: (n) => PAD.top + high + PAD.between + PAD.curve * (1 - n / top),
  };
};
const rectangle = (f, b) => {
  const x = f.x(first(b)), y = f.y(b.offset + b.bytes);
  return [x, y, Math.max(f.x(last(b) + 1) - x, .6), Math.max(f.y(b.offset) - y, .6)];
};
function marks(most, wanted) {
  const least = Math.max(most / wanted, 1), unit = 10 ** Math.floor(Math.log10(least));
  const by = [1, 2, 5, 10].map((n) => n * unit).find((n) => n >= least);
  return Array.from({ length: Math.floor(most / by) + 1 }, (_, i) => i * by);
}
const redraw = () => {
  if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; draw(); drawOverview(); }); }
};
function draw() {
  const style = getComputedStyle(document.documentElement), color = (name) => style.getPropertyValue(`--${name}`).trim();
  const [g] = fitted(canvas), f = frame(), right = PAD.left + f.width, base = f.level(0);
  g.font = "11px system-ui, sans-serif";
  g.textBaseline = "middle";
  for (const [wanted, y] of [[8, f.y], [2, f.level]]) {
    for (const mark of marks(region.size, wanted)) {
      g.fillStyle = color("grid"); g.fillRect(PAD.left, y(mark), f.width, 1);
      g.fillStyle = color("quiet"); g.textAlign = "right"; g.fillText(size(mark), PAD.left - 7, y(mark));
    }
  }
  g.save();
  g.beginPath(); g.rect(PAD.left, 0, f.width, f.h); g.clip();
  const searching = hits.size > 0;
  for (const i of placed) {
    const b = buffers[i];
    if (hidden.has(b.kind) || last(b) + 1 < view.from || first(b) > view.to) continue;
    const [x, y, w, h] = rectangle(f, b);
    g.globalAlpha = searching && !hits.has(i) ? .22 : 1;
    g.fillStyle = color(b.kind); g.fillRect(x, y, w, h);
    if (w > 2 && h > 2) { g.strokeStyle = color("edge"); g.lineWidth = .7; g.strokeRect(x + .35, y + .35, w - .7, h - .7); }
    if (b.contents.length > 1 && w > 8 && h > 5) {
      g.fillStyle = color("part"); g.strokeStyle = color("edge"); g.lineWidth = .5;
      for (const c of b.contents) {
        const px = f.x(c.first), pw = f.x(c.last + 1) - px, py = f.y(b.offset + c.shown[1]), ph = f.y(b.offset + c.shown[0]) - py;
        if (pw < 3 || ph < 2) continue;
        if (c.strided) g.fillRect(px, py, pw, ph);
        if (c.strided || c.in_place_of !== null) { g.setLineDash(c.strided ? [] : [3, 2]); g.strokeRect(px, py, pw, ph); }
      }
      g.setLineDash([]);
    }
    const left = Math.max(x, PAD.left), seen = Math.min(x + w, right) - left;
    if (h >= 13 && seen >= 30) {
      const room = Math.floor((seen - 8) / 6.2), name = b.name || b.id;
      g.fillStyle = color("label"); g.textAlign = "left";
      g.fillText(name.length <= room ? name : `…${name.slice(name.length - room + 1)}`, left + 4, y + h / 2);
    }
  }
  g.globalAlpha = 1;
  for (const i of [...hits, chosen, hovered]) {
    if (i === null || report.regions[buffers[i].region] !== region) continue;
    const [x, y, w, h] = rectangle(f, buffers[i]);
    g.strokeStyle = i === hovered || i === chosen ? color("accent") : color("hit"); g.lineWidth = i === chosen ? 3 : 2;
    g.strokeRect(x, y, w, h);
  }
  g.beginPath(); g.moveTo(f.x(Math.floor(view.from)), base);
  for (let t = Math.floor(view.from); t < Math.min(Math.ceil(view.to), TIMES); t++) { g.lineTo(f.x(t), f.level(region.live[t])); g.lineTo(f.x(t + 1), f.level(region.live[t])); }
  g.lineTo(f.x(Math.min(Math.ceil(view.to), TIMES)), base);
  g.fillStyle = color("fill"); g.fill(); g.strokeStyle = color("live"); g.lineWidth = 1.3; g.stroke();
  for (const y of [f.y, f.level]) {
    g.lineWidth = 1.4; g.strokeStyle = color("ink"); g.beginPath(); g.moveTo(PAD.left, y(region.size)); g.lineTo(right, y(region.size)); g.stroke();
    g.setLineDash([6, 4]); g.strokeStyle = color("peak"); g.beginPath(); g.moveTo(PAD.left, y(region.bound)); g.lineTo(right, y(region.bound)); g.stroke(); g.setLineDash([]);
  }
  g.fillStyle = color("peak"); g.globalAlpha = .12; g.fillRect(f.x(peak.time), PAD.top, Math.max(f.x(peak.time + 1) - f.x(peak.time), 1), base - PAD.top); g.globalAlpha = 1;
  g.setLineDash([2, 2]); g.strokeStyle = color("peak"); g.lineWidth = 1; g.strokeRect(f.x(peak.time), PAD.top, Math.max(f.x(peak.time + 1) - f.x(peak.time), 1), base - PAD.top); g.setLineDash([]);
  if (time !== null) { g.fillStyle = color("accent"); g.globalAlpha = .5; g.fillRect(f.x(time + .5), PAD.top, 1, base - PAD.top); g.globalAlpha = 1; }
  g.restore();
  const words = `peak ${size(peak.bytes)} at ${at(peak.time)}`, half = g.measureText(words).width / 2 + 4;
  const middle = Math.min(Math.max(f.x(peak.time + .5), PAD.left + 150 + half), right - half);
  g.font = "600 12px system-ui, sans-serif"; g.textAlign = "center"; g.fillStyle = color("peak"); g.fillText(words, middle, PAD.top + f.high + PAD.between / 2 + 2);
  g.font = "11px system-ui, sans-serif"; g.fillStyle = color("quiet"); g.textAlign = "left"; g.fillText("live bytes", PAD.left, PAD.top + f.high + PAD.between / 2 + 2);
  g.textAlign = "center";
  for (const mark of marks(Math.max(view.to - view.from, 1), Math.max(f.width / 80, 2)).map((m) => m + Math.floor(view.from))) {
    const x = f.x(mark + .5);
    if (mark < TIMES && x >= PAD.left && x <= right) g.fillText(at(mark), x, base + 14);
  }
}
function drawOverview() {
  const style = getComputedStyle(document.documentElement), color = (name) => style.getPropertyValue(`--${name}`).trim();
  const [g, w, h] = fitted(overview), wide = w - PAD.left - PAD.right, top = Math.max(region.size, 1);
  g.fillStyle = color("grid"); g.fillRect(PAD.left, 0, wide, h);
  g.fillStyle = color("live"); g.globalAlpha = .45;
  region.live.forEach((n, t) => g.fillRect(PAD.left + wide * t / TIMES, h * (1 - n / top), Math.max(wide / TIMES, .5), h * n / top));
  g.globalAlpha = 1; g.strokeStyle = color("accent"); g.lineWidth = 2;
  g.strokeRect(PAD.left + wide * view.from / TIMES, 1, wide * (view.to - view.from) / TIMES, h - 2);
}
function show(from, to) {
  const span = Math.min(Math.max(to - from, Math.min(4, TIMES)), TIMES);
  view.from = Math.min(Math.max((from + to - span) / 2, 0), TIMES - span);
  view.to = view.from + span;
  redraw();
}
const zoom = (by, middle = (view.from + view.to) / 2) => show(middle - (middle - view.from) * by, middle + (view.to - middle) * by);
function find(x, y) {
  const f = frame();
  let best = null, area = Infinity;
  for (const i of placed) {
    if (hidden.has(buffers[i].kind)) continue;
    const [left, top, w, h] = rectangle(f, buffers[i]), slack = 1.5;
    if (x >= left - slack && x <= left + w + slack && y >= top - slack && y <= top + h + slack && w * h < area) [best, area] = [i, w * h];
  }
  return best;
}
