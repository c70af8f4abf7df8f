// What is said of a buffer: beside the pointer, and below the chart for the one that is kept.
function hover(x, y) {
  const f = frame(), now = Math.floor(f.t(x));
  const inside = x >= PAD.left && x <= f.w - PAD.right && now >= 0 && now < TIMES;
  hovered = inside ? find(x, y) : null;
  time = inside ? now : null;
  tip.hidden = !inside;
  if (hovered !== null) describe(tip, buffers[hovered]);
  else if (inside) {
    tip.replaceChildren(make("b", now > 0 && now <= steps.length ? step(now - 1) : at(now)));
    tip.append(make("div", `${size(region.live[now])} live, ${share(region.live[now], region.size)} of the ${region.name}`));
  }
  if (inside) {
    tip.style.left = `${Math.max(0, Math.min(x + 14, f.w - tip.offsetWidth))}px`;
    tip.style.top = `${y + 16 + tip.offsetHeight > f.h ? Math.max(0, y - tip.offsetHeight - 12) : y + 16}px`;
  }
  redraw();
}
function leave() { hovered = null; time = null; tip.hidden = true; redraw(); }
function choose(i) {
  chosen = i;
  if (i === null) $("details").replaceChildren();
  else describe($("details"), buffers[i]);
  redraw();
}
function reveal(i) {
  const b = buffers[i], span = view.to - view.from;
  if (b.region !== null && report.regions[b.region] !== region) openRegion(b.region);
  choose(i);
  if (b.region !== null && (first(b) < view.from || last(b) + 1 > view.to)) {
    const middle = (first(b) + last(b) + 1) / 2;
    show(middle - span / 2, middle + span / 2);
  }
}
// Up and down go through what is alive at the time, by address.
function climb(by) {
  const now = time ?? peak.time;
  const alive = placed.filter((i) => first(buffers[i]) <= now && last(buffers[i]) >= now && !hidden.has(buffers[i].kind)).sort((a, b) => buffers[a].offset - buffers[b].offset);
  if (!alive.length) return;
  const here = alive.indexOf(chosen);
  time = now;
  choose(alive[here < 0 ? (by > 0 ? 0 : alive.length - 1) : Math.min(Math.max(here + by, 0), alive.length - 1)]);
}
function walk(by) {
  time = Math.min(Math.max((time ?? peak.time) + by, 0), TIMES - 1);
  if (time < view.from || time + 1 > view.to) show(view.from + by, view.to + by);
  const text = time > 0 && time <= steps.length ? `${step(time - 1)}: ${steps[time - 1].computes}` : at(time);
  chosen = null;
  $("details").replaceChildren(make("b", text), make("div", `${size(region.live[time])} live, ${share(region.live[time], region.size)} of the ${region.name}`));
  redraw();
}
