// What each method computes before it recommends: nothing, latent states, or text; quality beside seconds and tokens per case.

// By the place of a kind in doc.thinking.kinds.
const KIND_COLOURS = ["var(--soft)", "var(--line2)", "var(--baseline)", "var(--reference)"];
const KIND_SHAPES = [d3.symbolCircle, d3.symbolSquare, d3.symbolTriangle, d3.symbolDiamond];
const NOTHING = 0;
const APART_BY = 8; // pixels between points of equal cost

function kindMark(kind) {
  return s("svg", { class: "kind", viewBox: "-8 -8 16 16", "aria-hidden": "true" }, s("path", { d: d3.symbol(KIND_SHAPES[kind], 80)(), fill: KIND_COLOURS[kind] }));
}

// The best row of each kind, in the order of the kinds.
function bestOfKinds(rows) {
  return [...new Set(rows.map((row) => row.kind))].map((kind) => {
    const own = rows.filter((row) => row.kind === kind);
    return { number: own.length, ...own.reduce((best, row) => (row.mean > best.mean ? row : best)) };
  });
}

// The best of a kind in a sentence, and what it has more than the best that computes nothing.
function kindInWords(section, best, plain) {
  const metric = doc.metrics[doc.main];
  const costs = `${cost(best.seconds_alone)} s and ${cost(best.tokens)} tokens per case`;
  const first = `${names[best.method]}${best.number > 1 ? `, best of ${best.number} methods` : ""}: ${metric} ${fixed(best.mean)}, ${costs}.`;
  const one = plain && plain.method !== best.method ? pairOf(section, best.method, plain.method) : null;
  const against = one ? ` Minus ${names[plain.method]}: ${signed(one.difference[doc.main])} [${signed(one.low[doc.main])}, ${signed(one.high[doc.main])}], ${verdictOf(one, doc.main, best.method, plain.method)}.` : "";
  return h("li", {}, kindMark(best.kind), h("strong", {}, `${doc.thinking.kinds[best.kind]}: `), first, against);
}

// How far each point moves to the side, so that points of equal cost stand beside each other.
function besideEachOther(points, column) {
  const groups = Map.groupBy(points, (point) => cost(point[column]));
  for (const group of groups.values()) group.forEach((point, k) => { point.dx = (k - (group.length - 1) / 2) * APART_BY; });
  return Math.max(...[...groups.values()].map((group) => group.length));
}

// One panel: a cost per case against the metric. top: the end of the scale that both panels share.
function costPanel(rows, column, label, top, width) {
  const points = rows.map((row, i) => ({ ...row, number: i + 1 }));
  const inset = 16 + (besideEachOther(points, column) * APART_BY) / 2;
  const most = Math.max(...points.map((point) => point[column]));
  const tens = [0, ...Array.from({ length: 12 }, (_, k) => 10 ** k).filter((value) => value <= most)];
  const tokens = column === "tokens";
  const x = tokens ? { type: "symlog", domain: [0, most], ticks: tens } : { type: "log", ticks: 5 };
  const plot = Plot.plot({
    width, height: 340, marginLeft: 56, marginBottom: 44, style: FONT,
    x: { ...x, inset, label, labelOffset: 40, tickFormat: (value) => value.toLocaleString("en-US", { maximumSignificantDigits: 1 }) },
    y: { label: doc.metrics[doc.main], domain: [0, top], grid: true, ticks: 6 },
    marks: points.flatMap((point) => {
      const [colour, shape] = [KIND_COLOURS[point.kind], KIND_SHAPES[point.kind]];
      const at = { x: () => Math.max(point[column], tokens ? 0 : 1e-6), dx: point.dx }; // a log scale has no 0
      return [Plot.ruleX([point], { ...at, y1: "low", y2: "high", stroke: colour, strokeOpacity: 0.5 }), Plot.dot([point], { ...at, y: "mean", r: 4.5, fill: colour, symbol: shape })];
    }),
  });
  const at = (scale, value) => plot.scale(scale).apply(value);
  numberPoints(plot, points.map((point) => ({
    number: point.number, x: at("x", Math.max(point[column], tokens ? 0 : 1e-6)) + point.dx, y: at("y", point.mean), low: at("y", point.low), high: at("y", point.high),
  })));
  return named(plot, `${label} against ${doc.metrics[doc.main]}`);
}

function thinkingFigure(rows) {
  const panels = [["seconds_alone", "seconds per case, alone (log scale)"], ["tokens", "tokens per case (log scale from 1 on)"]].filter(([column]) => rows.some((row) => row[column]));
  const top = 1.05 * Math.max(1e-6, ...rows.map((row) => row.high ?? row.mean));
  const kinds = [...new Set(rows.map((row) => row.kind))];
  return h("figure", {}, h("h3", {}, "Quality against cost"),
    h("ul", { class: "legend" }, kinds.map((kind) => h("li", {}, kindMark(kind), doc.thinking.kinds[kind]))),
    h("div", { class: "panels" }, panels.map(([column, label]) => h("div", {}, costPanel(rows, column, label, top, panelWidth(panels.length))))),
    h("ol", { class: "legend numbered" }, rows.map((row, i) => h("li", {}, `${i + 1} ${names[row.method]}`))),
    h("figcaption", {}, "Lines: 95 % interval over users. Points of equal cost stand beside each other."));
}

function thinkingTable(section, rows) {
  const domain = [0, 1.03 * Math.max(1e-6, ...rows.map((row) => row.high ?? row.mean))];
  const interval = (row) => `[${fixed(row.low)}, ${fixed(row.high)}]`;
  const price = (id, head) => ({ id, head, value: (row) => row[id], text: (row) => cost(row[id]), cell: (row) => cost(row[id]) });
  const columns = [
    { id: METHOD, head: "method", kind: "text", value: (row) => names[row.method], cell: (row) => methodName(row.method) },
    { id: "mean", head: doc.metrics[doc.main], value: (row) => row.mean, text: (row) => `${fixed(row.mean)} ${interval(row)}`,
      cell: (row) => h("span", { class: "value" }, bar({ mean: row.mean, low: row.low, high: row.high, domain, kind: "plain" }), h("span", {}, fixed(row.mean)), h("small", {}, interval(row))) },
    { id: "kind", head: "before it recommends", kind: "text", value: (row) => doc.thinking.kinds[row.kind], cell: (row) => [kindMark(row.kind), doc.thinking.kinds[row.kind]] },
    price("seconds_alone", "seconds per case, alone"), price("seconds_batched", "seconds per case, in batches"), price("tokens", "tokens per case"),
  ];
  const table = dataTable({ label: "By what is computed", caption: `${section.name}: ${many(section.cases, "test case")} of ${many(section.users, "user")}${section === doc.overall ? "; quality and costs are means of the datasets" : ""}`, columns, rows });
  return [table.element, failedOf(section), copying(columns, table)];
}

function thinkingView() {
  const section = state.dataset === "all" && doc.overall ? doc.overall : doc.datasets[state.dataset === "all" ? 0 : Number(state.dataset)];
  const rows = doc.thinking.rows[section.name];
  const best = bestOfKinds(rows);
  const plain = best.find((row) => row.kind === NOTHING);
  const datasets = [...(doc.overall ? [["all", "all datasets"]] : []), ...doc.datasets.map((one, i) => [i, one.name])];
  return [
    h("h2", { tabindex: -1 }, "Before it recommends: nothing, latent states or text"),
    datasets.length > 1 ? h("div", { class: "controls" }, select("Dataset", state.dataset, datasets, (value) => { choose({ dataset: value }); show(); })) : null,
    h("ul", { class: "said kinds" }, best.map((row) => kindInWords(section, row, plain))),
    h("p", { class: "notes" }, "The best of a kind is chosen by these test cases, which flatters it, and a kind of many methods more than one of few."),
    thinkingFigure(rows),
    thinkingTable(section, rows),
    doc.thinking.notes.map((note) => h("p", { class: "notes" }, note)),
  ];
}
