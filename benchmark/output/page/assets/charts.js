// Intervals in table cells, and the few figures that Observable Plot draws.

const PAD = 4;

// A point with its interval on a scale that all cells of a column share. domain: [low, high]. band: half-width around 0 within which
// a difference would have been missed. unknown: no interval is known, which looks as uncertain as it is.
function bar({ mean, low, high, domain, kind = "", band = null, zero = false, open = false, unknown = false, long = false, short = false }) {
  const narrow = innerWidth < 600;
  const width = long ? (narrow ? 120 : 220) : short || narrow ? 72 : 110;
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
  // Shapes as well as colours: a diamond is an R2ec.
  if (kind === "r2ec") drawn.append(s("path", { class: place, d: width < 100 ? `M${at(mean)} 5l4 4l-4 4l-4 -4z` : `M${at(mean)} 4l5 5l-5 5l-5 -5z` }));
  else drawn.append(s("circle", { class: place, cx: at(mean), cy: 9, r: width < 100 ? 3 : 4 }));
  return drawn;
}

// The scale of differences: all values with 0 in the middle.
function around(values) {
  const most = Math.max(1e-6, ...values.filter((value) => value !== null && value !== undefined).map(Math.abs)) * 1.05;
  return [-most, most];
}

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

// The curves of one panel: mean over seeds as a line, lowest to highest seed as a band.
function curves(panel, styles, width) {
  const marks = [];
  for (const line of panel.lines) {
    const { stroke, dash } = styles.get(line.label);
    const points = line.step.map((step, i) => ({ step, mean: line.mean[i], low: line.low[i], high: line.high[i] }));
    if (points.some((point) => point.low !== point.high)) marks.push(Plot.areaY(points, { x: "step", y1: "low", y2: "high", fill: stroke, fillOpacity: 0.15 }));
    marks.push(Plot.lineY(points, { x: "step", y: "mean", stroke, strokeDasharray: dash, strokeWidth: 1.8 }));
  }
  return named(Plot.plot({ width, height: 220, marginLeft: 52, marginBottom: 44, style: FONT, x: { label: "step", labelOffset: 38, ticks: 5 }, y: { label: null, ticks: 5, grid: true, inset: 4 }, marks }), `${panel.title} by step`);
}

// A factor whose values are numbers: mean and interval by value, in their order.
function byValue(values, metric, base, width) {
  const points = values.map((value) => ({ label: value.label, mean: value.mean[metric], low: value.low[metric], high: value.high[metric], base: value.label === base }));
  const level = points.find((point) => point.base);
  const plot = Plot.plot({
    width, height: 240, marginLeft: 56, marginBottom: 42, style: FONT,
    x: { type: "point", domain: points.map((point) => point.label), label: null },
    y: { label: null, grid: true, zero: false, ticks: 5, inset: 6 },
    marks: [
      level ? Plot.ruleY([level.mean], { stroke: "currentColor", strokeDasharray: "3 3", strokeOpacity: 0.6 }) : null,
      Plot.ruleX(points, { x: "label", y1: "low", y2: "high", stroke: "var(--r2ec)", strokeWidth: 2 }),
      Plot.dot(points, { x: "label", y: "mean", r: 5, fill: (point) => (point.base ? "var(--ink)" : "var(--r2ec)"), symbol: (point) => (point.base ? "diamond" : "circle") }),
    ],
  });
  return named(plot, `${doc.metrics[metric]} by value`);
}

// Seconds of a run against a metric: methods by number, as their names would cross each other.
function costAgainst(rows, metric, width) {
  const points = rows.map((row, i) => ({ number: i + 1, name: names[row.method], seconds: Math.max(row.seconds, 0.001), mean: row.mean[metric], low: row.low[metric], high: row.high[metric], r2ec: doc.methods[row.method].r2ec }));
  const colour = (point) => (point.r2ec ? "var(--r2ec)" : "var(--baseline)");
  const plot = Plot.plot({
    width, height: 320, marginLeft: 56, marginBottom: 44, style: FONT,
    x: { type: "log", inset: 14, label: "fit and ranking, seconds per run", labelOffset: 40, ticks: 5, tickFormat: (value) => String(value) },
    y: { label: doc.metrics[metric], grid: true, zero: true, ticks: 6 },
    marks: [
      Plot.ruleX(points, { x: "seconds", y1: "low", y2: "high", stroke: colour, strokeOpacity: 0.5 }),
      Plot.dot(points, { x: "seconds", y: "mean", r: 9, fill: "var(--ground)", stroke: colour, strokeWidth: 1.8, symbol: (point) => (point.r2ec ? "diamond" : "circle") }),
      Plot.text(points, { x: "seconds", y: "mean", text: "number", fill: "var(--ink)", fontSize: 10 }),
    ],
  });
  return named(plot, `Seconds per run against ${doc.metrics[metric]}`);
}

function named(plot, label) {
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", label);
  for (const one of plot.querySelectorAll("[aria-label]")) if (one !== plot) one.removeAttribute("aria-label");
  return plot;
}
