// Where the numbers come from.

// A row per rule or setting, a column per dataset. rows: [what, values] or [what, name in a config, values].
function perDataset(label, rows) {
  const shown = (value) => (typeof value === "number" ? count(value) : value ?? "");
  const columns = [
    { id: "what", head: "what", kind: "prose", fixed: true, value: ([words]) => words, cell: ([words, ...more]) => [words, more.length > 1 ? h("small", {}, more[0]) : null] },
    ...doc.datasets.map((one, i) => ({ id: `of ${i}`, head: one.name, fixed: true, value: (row) => row.at(-1)[i] ?? undefined, cell: (row) => shown(row.at(-1)[i]) })),
  ];
  return h("div", { class: "half" }, dataTable({ label, columns, rows }).element);
}

const AS_IT_IS = ["training", "seed"]; // numbers that are none to be rounded

// Every run, without the columns in which all are the same: those are said once.
function everyRun(runs) {
  const numeric = (name) => runs.every((run) => typeof run[name] === "number");
  const written = (name) => (run) => (numeric(name) && !AS_IT_IS.includes(name) ? cost(run[name]) : String(run[name]));
  const all = Object.keys(runs[0]).filter((name) => name !== "settings");
  const columns = all.map((name) => ({ id: name, head: name, kind: numeric(name) ? "" : "text", value: (run) => run[name], cell: name === "method" ? (run) => methodName(names.indexOf(run.method)) : written(name) }));
  const same = all.filter((name) => runs.length > 1 && !["dataset", "method", "training"].includes(name) && new Set(runs.map((run) => run[name])).size === 1);
  const caption = `${many(runs.length, "run")}${same.length ? `, all with ${same.map((name) => `${name}: ${written(name)(runs[0])}`).join("; ")}` : ""}`;
  const table = dataTable({ label: "Every run", caption, columns: columns.filter((column) => !same.includes(column.id)), rows: runs });
  return [table.element, copying(columns, table)];
}

function settingsOfRuns(runs) {
  const settings = new Map();
  for (const run of runs) settings.set(`${run.method}\n${run.settings}`, [...(settings.get(`${run.method}\n${run.settings}`) ?? []), `${run.dataset} ${run.training}`]);
  return h("dl", {}, [...settings].map(([key, where]) => {
    const [method, text] = key.split("\n");
    return [h("dt", {}, method), h("dd", {}, text || "none", h("span", { class: "soft" }, ` (${where.length > 6 ? many(where.length, "run") : where.join(", ")})`))];
  }));
}

function provenanceView() {
  const { shared, read, rules, settings, datasets, runs } = doc.provenance;
  return [
    h("h2", { tabindex: -1 }, "Provenance"),
    shared.map(([head, values]) => [h("h3", {}, head), h("ul", { class: "plain" }, values.map(([text, number]) => h("li", {}, text, h("span", { class: "soft" }, ` (${many(number, "run")})`))))]),
    h("h3", {}, "Data: from interactions to cases"), perDataset("Rules and counts", rules),
    read.length ? [h("h3", {}, "Data: while a source was read"), perDataset("Counts of the sources", read)] : null,
    h("h3", {}, "Data: settings"), h("p", { class: "notes" }, "Small: the name in a config, which config/README.md explains."), perDataset("Settings of the data", settings),
    datasets.map((data) => [
      h("h3", {}, `Data: ${data.name}`),
      data.warnings.length ? [h("h4", {}, "Warnings"), h("ul", { class: "plain" }, data.warnings.map((text) => h("li", {}, text)))] : null,
      h("dl", {}, data.facts.map(([name, text]) => [h("dt", {}, name), h("dd", {}, text)])),
    ]),
    h("h3", {}, "Every run"), everyRun(runs),
    h("h3", {}, "Settings of every run"), h("p", { class: "notes" }, "By their names in a config, which config/README.md explains."), settingsOfRuns(runs),
  ];
}
