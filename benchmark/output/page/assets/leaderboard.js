// The leaderboard: one row per method, on one dataset or over all.

const METHOD = "method";

// Long names may break behind each "_".
function methodName(number) {
  const pieces = runNames[number].split(/(?<=_)/).flatMap((piece, i) => (i ? [h("wbr"), piece] : [piece]));
  return h("span", { class: isReference(number) ? "name reference" : "name", title: runNames[number] }, pieces);
}

// The rows of a section with the number of their method.
const rowsOf = (section) => section.rows.map((row) => ({ ...row, seconds: row.costs[doc.costs.names.indexOf("fit_s")] + row.costs[doc.costs.names.indexOf("score_s")] }));

// Places 1 and 2 of a column by the printed values, so that equal prints share a place.
function placesOf(rows, metric) {
  const printed = [...new Set(rows.map((row) => fixed(row.mean[metric])))].sort().reverse();
  return (row) => (row.mean[metric] > 0 ? printed.indexOf(fixed(row.mean[metric])) + 1 : 0);
}

const isMarked = (row, metric) => row.p[metric] !== null && row.p[metric] < doc.alpha;

// What a mark says: the test against the best baseline.
function testInWords(section, row, metric) {
  const best = names.indexOf(section.best_baseline);
  const one = pairOf(section, row.method, best);
  return `${names[row.method]} minus ${section.best_baseline}, the best baseline: ${signed(one.difference[metric])} [${signed(one.low[metric])}, ${signed(one.high[metric])}] ${doc.metrics[metric]}, p ${probability(one.p[metric])}, ${probability(row.p[metric])} after Holm's correction. ${one.test[metric]}.`;
}

function metricCell(section, row, metric, domain, place, short) {
  const kind = isReference(row.method) ? "reference" : "";
  const shape = { 1: "best", 2: "second" }[place(row)] ?? "";
  const spread = row.sd[metric] ? ` ± ${fixed(row.sd[metric])}` : "";
  return h("span", { class: short ? "value short" : "value" },
    bar({ mean: row.mean[metric], low: row.low[metric], high: row.high[metric], domain, kind, short }),
    h("span", {}, h("span", { class: shape }, fixed(row.mean[metric])), short ? null : spread, isMarked(row, metric) ? noted(testInWords(section, row, metric), "†") : null),
    h("small", {}, `[${fixed(row.low[metric])}, ${fixed(row.high[metric])}]`, short && spread ? [h("br"), spread] : null));
}

function metricText(row, metric) {
  const spread = row.sd[metric] ? ` ± ${fixed(row.sd[metric])}` : "";
  return `${fixed(row.mean[metric])}${isMarked(row, metric) ? "†" : ""}${spread} [${fixed(row.low[metric])}, ${fixed(row.high[metric])}]`;
}

function metricColumn(section, rows, metric, domain, head, short, pick = (row) => row) {
  const place = placesOf(rows.map(pick), metric);
  return {
    id: `${head} ${metric}`, head,
    value: (row) => pick(row).mean[metric],
    text: (row) => metricText(pick(row), metric),
    cell: (row) => metricCell(section, pick(row), metric, domain, place, short),
  };
}

function metricsChosen() {
  const kinds = state.kind === "both" ? ["Hit", "NDCG"] : [state.kind];
  const cutoffs = state.cutoff === "all" ? doc.cutoffs : [Number(state.cutoff)];
  return cutoffs.flatMap((cutoff) => kinds.map((kind) => metricAt(kind, cutoff)));
}

const scaleOf = (rows, metric) => [0, Math.max(1e-6, ...rows.map((row) => Math.max(row.high[metric] ?? 0, row.mean[metric]))) * 1.03];

// Methods, the chosen metrics, the paper's figure where there is one, trainings, costs.
function leaderColumns(section, rows) {
  const columns = [{ id: METHOD, head: "method", kind: "text", value: (row) => names[row.method], cell: (row) => methodName(row.method) }];
  const over = section === doc.overall;
  for (const metric of metricsChosen()) {
    const every = over ? [section, ...doc.datasets] : [section];
    const domain = scaleOf(every.flatMap((one) => one.rows), metric);
    columns.push(metricColumn(section, rows, metric, domain, over ? `${doc.metrics[metric]}, mean of datasets` : doc.metrics[metric], over || metricsChosen().length > 2));
    if (over) for (const one of doc.datasets) {
      const mine = rowsOf(one);
      columns.push(metricColumn(one, rows, metric, domain, `${doc.metrics[metric]}, ${one.name}`, true, (row) => mine.find((one) => one.method === row.method)));
    }
    if (rows.some((row) => row.paper)) columns.push({
      id: `paper ${metric}`, head: `paper's ${doc.metrics[metric]}`, value: (row) => row.paper?.[metric] ?? undefined,
      text: (row) => fixed(row.paper?.[metric]), cell: (row) => fixed(row.paper?.[metric]) || h("span", { class: "soft" }, "none"),
    });
  }
  columns.push({ id: "trainings", head: "trainings", value: (row) => row.seeds, text: (row) => String(row.seeds), cell: (row) => [String(row.seeds), row.equal ? h("small", {}, "all equal") : null] });
  const few = ["fit_s", "score_s", "tokens", "ms_alone"];
  doc.costs.names.forEach((name, i) => {
    if (state.costs === "none" || (state.costs === "few" && !few.includes(name))) return;
    if (rows.every((row) => !row.costs[i])) return; // a column of zeros says nothing
    columns.push({ id: name, head: doc.costs.headings[i], value: (row) => row.costs[i], text: (row) => cost(row.costs[i]), cell: (row) => cost(row.costs[i]) });
  });
  return columns;
}

function leaderboardView() {
  const section = state.dataset === "all" && doc.overall ? doc.overall : doc.datasets[state.dataset === "all" ? 0 : Number(state.dataset)];
  const all = rowsOf(section);
  const rows = all.filter((row) => state.group === "all" || doc.methods[row.method].kind === state.group);
  const columns = leaderColumns(section, rows);
  const wanted = (text) => (text ? (row) => names[row.method].toLowerCase().includes(text.toLowerCase()) : "");
  const first = metricsChosen().includes(doc.main) ? doc.main : metricsChosen()[0];
  const by = columns.find((column) => column.id.endsWith(` ${first}`));
  const table = dataTable({
    label: "Leaderboard", caption: `${section.name}: ${many(section.cases, "test case")} of ${many(section.users, "user")}`, columns, rows,
    sorting: [{ id: by.id, desc: true }], filter: wanted(state.filter),
  });
  const datasets = [...(doc.overall ? [["all", "all datasets"]] : []), ...doc.datasets.map((one, i) => [i, one.name])];
  const redraw = (key) => (value) => { choose({ [key]: value }); show(); };
  const find = h("input", { type: "search", value: state.filter, oninput: (event) => { choose({ filter: event.target.value }); tell(many(table.narrow(wanted(event.target.value)), "method")); } });
  const kinds = new Set(doc.methods.map((method) => method.kind));
  return [
    h("h2", { tabindex: -1 }, "Leaderboard"),
    h("div", { class: "controls" },
      datasets.length > 1 ? select("Dataset", state.dataset, datasets, redraw("dataset")) : null,
      select("Metric", state.kind, [["NDCG", "NDCG"], ["Hit", "Hit"], ["both", "both"]], redraw("kind")),
      select("Cut-off", state.cutoff, [...doc.cutoffs.map((k) => [k, `@${k}`]), ["all", "all"]], redraw("cutoff")),
      kinds.size > 1 ? select("Methods", state.group, [["all", "all"], ["reference", "references"], ["baseline", "baselines"]], redraw("group")) : null,
      select("Costs", state.costs, [["few", "main ones"], ["all", "all"], ["none", "none"]], redraw("costs")),
      h("label", { class: "grow" }, "Filter by name", find)),
    table.element,
    failedOf(section),
    copying(columns, table),
    reading(section, all),
    againstPart(section),
    costFigure(all, first),
  ];
}

// Methods without a result, said where their rows would stand; over all datasets, of each.
function failedOf(section) {
  const said = section === doc.overall ? doc.datasets.flatMap((one) => one.failed.map((text) => `${one.name}: ${text}`)) : section.failed;
  return failedList(said);
}

function failedList(said) {
  return said.length ? h("ul", { class: "plain" }, said.map((text) => h("li", {}, text))) : null;
}

// What the marks of the table mean, and the notes of its dataset.
function reading(section, rows) {
  const shown = section === doc.overall ? doc.datasets.flatMap((one) => one.rows) : rows; // whose marks the table has
  const marked = metricsChosen().some((metric) => shown.some((row) => isMarked(row, metric)));
  const spread = metricsChosen().some((metric) => shown.some((row) => row.sd[metric]));
  return h("div", {},
    h("p", { class: "notes" }, "Best bold, second underlined. Bars: mean and 95 % interval over users, on one scale from 0; circles are baselines, diamonds references, which the baselines are held against.",
      marked ? " † differs from the best baseline; hover, focus or tap it for the test." : "", spread ? " ±: sd over trainings." : "",
      rows.some((row) => row.less) ? ` Learned from less than the others: ${rows.filter((row) => row.less).map((row) => `${names[row.method]} (${row.less})`).join(", ")}.` : "",
      rows.some((row) => row.equal) ? " All equal: every training of the row ranked every case alike." : ""),
    h("details", {}, h("summary", {}, "How the numbers were made"), section.notes.map((note) => h("p", { class: "notes" }, note)), h("p", { class: "notes" }, doc.costs.note)));
}

// The reference against each of the others: the comparison that the config names.
function againstPart(section) {
  if (!doc.against) return null;
  // Those of the dataset that is shown; where the reference has none there, all.
  const own = doc.against.rows.filter((row) => row.dataset === section.name);
  const rows = own.length ? own : doc.against.rows;
  const domain = scaleOfDifferences(rows);
  const verdict = (row) => (row.p_holm >= doc.alpha ? APART : `${row.difference > 0 ? row.reference : row.method} ranks better`);
  const columns = [
    { id: "method", head: "method", kind: "text", value: (row) => row.method, cell: (row) => methodName(names.indexOf(row.method)) },
    ...(!own.length ? [{ id: "dataset", head: "dataset", kind: "text", value: (row) => row.dataset }] : []),
    differenceColumn(domain),
    { id: "verdict", head: "verdict", kind: "text", value: verdict, cell: (row) => h("span", { class: "verdict" }, verdict(row)) },
    { id: "p_holm", head: "p, Holm", value: (row) => row.p_holm, text: (row) => probability(row.p_holm), cell: (row) => probability(row.p_holm) },
    { id: "detectable", head: "smallest detectable", value: (row) => row.detectable ?? undefined, text: (row) => fixed(row.detectable), cell: (row) => fixed(row.detectable) || "unknown" },
  ];
  const table = dataTable({ label: doc.against.title, caption: `${own.length ? `${section.name}: ` : ""}${doc.metrics[doc.main]} of ${rows[0].reference} minus that of each. ${BAND} ${ends(domain)}`, columns, rows });
  return [h("h3", {}, doc.against.title), table.element, copying(columns, table), h("p", { class: "notes" }, doc.against.note)];
}

function costFigure(rows, metric) {
  if (rows.length < 2) return null;
  const ordered = [...rows].sort((a, b) => b.mean[metric] - a.mean[metric]);
  return h("figure", {}, h("h3", {}, "What quality costs"), costAgainst(ordered, metric, figureWidth(900)),
    h("ol", { class: "legend numbered" }, ordered.map((row, i) => h("li", {}, `${i + 1} ${names[row.method]}`))),
    h("figcaption", {}, "Seconds of the runs, tuning excluded (Provenance has their machines); lines: 95 % interval over users."));
}

// The width of one of so many panels, which stand side by side as `.panels` has it: letters keep their size.
function panelWidth(number) {
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
  const whole = document.getElementById("main").clientWidth;
  const columns = Math.max(1, Math.min(number, Math.floor((whole + 1.2 * rem) / (20.2 * rem))));
  return Math.floor((whole - 1.2 * rem * (columns - 1)) / columns);
}

const figureWidth = (most) => Math.min(most, document.getElementById("main").clientWidth);
