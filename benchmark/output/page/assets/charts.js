// Intervals in table cells, and the few figures that Observable Plot draws.

const PAD = 4;
const DIAMONDS = ["reference", "base"]; // kinds of points; the others are circles

// A point with its interval on a scale that all cells of a column share. domain: [low, high]. band: half-width around 0 within which
// a difference would have been missed. unknown: no interval is known, which looks as uncertain as it is.
function bar({ mean, low, high, domain, kind = "", band = null, zero = false, open = false, unknown = false, long = false, short = false }) {
  const narrow = innerWidth < 600;
  const width = long ? (narrow ? 120 : 220) : narrow ? 72 : short ? 64 : 110;
  const at = (value) => PAD + ((value - domain[0]) / (domain[1] - domain[0] || 1)) * (width - 2 * PAD);
  const drawn = s("svg", { class: "bar", width, height: 18, "aria-hidden": "true" });
  if (band !== null) {
    const [from, to] = [Math.max(domain[0], -band), Math.min(domain[1], band)].map(at);
    drawn.append(s("rect", { class: "band", x: from, y: 1, width: Math.max(0, to - from), height: 16 }));
  }
  if (zero) drawn.append(s("line", { class: "zero", x1: at(0), x2: at(0), y1: 0, y2: 18 }));
  if (unknown) drawn.append(s("line", { class: "unknown", x1: PAD, x2: width - PAD, y1: 9, y2: 9 }));
  if (low !== null && low !== undefined) drawn.append(s("line", { class: `interval ${kind}`, x1: at(low), x2: at(high), y1: 9, y2: 9 }));
  if (mean === null) return drawn;
  const place = `point ${kind} ${open || unknown ? "open" : ""}`;
  // Shapes as well as colours, and small, so that a short interval still shows on both sides.
  if (DIAMONDS.includes(kind)) drawn.append(s("path", { class: place, d: `M${at(mean)} 5l4 4l-4 4l-4 -4z` }));
  else drawn.append(s("circle", { class: place, cx: at(mean), cy: 9, r: 3 }));
  return drawn;
}

// The scale of differences: [low, high] around 0, every interval and every band of what would have been missed. rows: each with
// difference, low, high and detectable, null or undefined where unknown.
function scaleOfDifferences(rows) {
  const values = rows.flatMap((row) => [row.low, row.high, row.difference, row.detectable, row.detectable && -row.detectable]);
  const known = [-1e-6, 1e-6, ...values.filter((value) => value !== null && value !== undefined)];
  return [1.03 * Math.min(...known), 1.03 * Math.max(...known)];
}

const ends = (domain) => `Bars run from ${signed(domain[0])} to ${signed(domain[1])}.`;

const COLOURS = [0, 1, 2, 3, 4, 5].map((i) => `var(--line${i})`); // after Okabe and Ito, dark or light enough for the ground
const FONT = { fontSize: "12px", fontFamily: "inherit", background: "none" };
const DASHES = ["", "6 3", "2 3"];

// Colour and dashes of each line: the base in the ink, the others in order.
function styleOf(labels, base) {
  const found = new Map([[base, { stroke: "currentColor", dash: "" }]]);
  labels.filter((label) => label !== base).forEach((label, i) => {
    found.set(label, { stroke: COLOURS[i % COLOURS.length], dash: DASHES[Math.floor(i / COLOURS.length) % DASHES.length] });
  });
  return found;
}

function legend(labels, styles, base) {
  return h("ul", { class: "legend" }, labels.map((label) => {
    const { stroke, dash } = styles.get(label);
    const line = s("svg", { viewBox: "0 0 28 10", "aria-hidden": "true" }, s("line", { x1: 0, x2: 28, y1: 5, y2: 5, stroke, "stroke-width": 2.5, "stroke-dasharray": dash }));
    return h("li", {}, line, label === base ? `${label} (base)` : label);
  }));
}

// The curves of one panel: mean over seeds as a line, lowest to highest seed as a band. levels: [lowest, highest] of the scale.
function curves(panel, styles, levels, width) {
  const marks = [];
  for (const line of panel.lines) {
    const { stroke, dash } = styles.get(line.label);
    const points = line.step.map((step, i) => ({ step, mean: line.mean[i], low: line.low[i], high: line.high[i] }));
    if (points.some((point) => point.low !== point.high)) marks.push(Plot.areaY(points, { x: "step", y1: "low", y2: "high", fill: stroke, fillOpacity: 0.15 }));
    marks.push(Plot.lineY(points, { x: "step", y: "mean", stroke, strokeDasharray: dash, strokeWidth: 1.8 }));
  }
  return named(Plot.plot({ width, height: 220, marginLeft: 52, marginBottom: 44, style: FONT, x: { label: "step", labelOffset: 38, ticks: 5 }, y: { label: null, domain: levels, ticks: 5, grid: true, inset: 4 }, marks }), `${panel.title} by step`);
}

// A factor whose values are numbers: mean and interval by value, in their order. levels: [lowest, highest] of the scale.
function byValue(values, metric, base, levels, width) {
  const points = values.map((value) => ({ label: value.label, mean: value.mean[metric], low: value.low[metric], high: value.high[metric], base: value.label === base }));
  const level = points.find((point) => point.base);
  const plot = Plot.plot({
    width, height: 240, marginLeft: 56, marginBottom: 42, style: FONT,
    x: { type: "point", domain: points.map((point) => point.label), label: null },
    y: { label: null, domain: levels, grid: true, ticks: 5, inset: 6 },
    marks: [
      level ? Plot.ruleY([level.mean], { stroke: "currentColor", strokeDasharray: "3 3", strokeOpacity: 0.6 }) : null,
      Plot.ruleX(points, { x: "label", y1: "low", y2: "high", stroke: (point) => (point.base ? "var(--ink)" : "var(--reference)"), strokeWidth: 2 }),
      Plot.dot(points, { x: "label", y: "mean", r: 5, fill: (point) => (point.base ? "var(--ink)" : "var(--reference)"), symbol: (point) => (point.base ? "diamond" : "circle") }),
    ],
  });
  return named(plot, `${doc.metrics[metric]} by value`);
}

// Writes a number beside each point where it covers no other number, point or interval; a thin line joins those that had to move away.
// points: { number, x, y, low, high } in pixels, low and high the ends of the interval.
function numberPoints(plot, points) {
  const taken = points.flatMap(({ x, y, low, high }) => [[x - 6, y - 9, x + 6, y + 9], [x - 2, high, x + 2, low]]);
  const shared = (a, b) => Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0])) * Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
  for (const { number, x, y } of points) {
    const half = 3 + 4 * String(number).length;
    const near = 7 + half; // where the number stands beside its point
    let best = null;
    for (let radius = near; radius < 90; radius += 7) {
      for (let step = 0; step < 12; step += 1) {
        const [cx, cy] = [x + radius * Math.cos((step * Math.PI) / 6), y - radius * Math.sin((step * Math.PI) / 6)];
        const box = [cx - half, cy - 7, cx + half, cy + 7];
        const covered = taken.reduce((sum, other) => sum + shared(box, other), 0);
        if (cy > 14 && (best === null || covered < best.covered)) best = { covered, cx, cy, box, radius };
      }
    }
    taken.push(best.box);
    if (best.radius > near) {
      // The line ends at the edge of the number's box.
      const [dx, dy] = [x - best.cx, y - best.cy];
      const part = Math.min(half / Math.abs(dx || 1e-6), 7 / Math.abs(dy || 1e-6), 1);
      plot.append(s("line", { class: "lead", x1: x, y1: y, x2: best.cx + part * dx, y2: best.cy + part * dy }));
    }
    plot.append(s("text", { class: "number", x: best.cx, y: best.cy }, number));
  }
}

// Seconds of a run against a metric: methods by number, as their names would cross each other.
function costAgainst(rows, metric, width) {
  const points = rows.map((row, i) => ({ number: i + 1, name: names[row.method], seconds: Math.max(row.seconds, 0.001), mean: row.mean[metric], low: row.low[metric], high: row.high[metric], reference: isReference(row.method) }));
  const colour = (point) => (point.reference ? "var(--reference)" : "var(--baseline)");
  const plot = Plot.plot({
    width, height: 320, marginLeft: 56, marginBottom: 44, style: FONT,
    x: { type: "log", inset: 14, label: "fit and ranking, seconds per run", labelOffset: 40, ticks: 5, tickFormat: (value) => String(value) },
    y: { label: doc.metrics[metric], grid: true, zero: true, ticks: 6 },
    marks: [
      Plot.ruleX(points, { x: "seconds", y1: "low", y2: "high", stroke: colour, strokeOpacity: 0.5 }),
      Plot.dot(points, { x: "seconds", y: "mean", r: 5, fill: colour, symbol: (point) => (point.reference ? "diamond" : "circle") }),
    ],
  });
  const at = (scale, value) => plot.scale(scale).apply(value);
  numberPoints(plot, points.map((point) => ({ number: point.number, x: at("x", point.seconds), y: at("y", point.mean), low: at("y", point.low ?? point.mean), high: at("y", point.high ?? point.mean) })));
  return named(plot, `Seconds per run against ${doc.metrics[metric]}`);
}

function named(plot, label) {
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", label);
  for (const one of plot.querySelectorAll("[aria-label]")) if (one !== plot) one.removeAttribute("aria-label");
  return plot;
}
