// Where the numbers come from.

const SHARED = { commit: "Commit", versions: "Versions of packages", machine: "Machine" };

function ruleTable(data) {
  const columns = [
    { id: "rule", head: "what", kind: "prose", fixed: true, value: ([words]) => words },
    { id: "count", head: "how many", fixed: true, value: ([, number]) => number, cell: ([, number]) => (typeof number === "number" ? count(number) : number) },
  ];
  return h("div", { class: "half" }, dataTable({ label: `Rules and counts of ${data.name}`, columns, rows: data.rules }).element);
}

function provenanceView() {
  const { shared, datasets, runs } = doc.provenance;
  const numeric = (name) => runs.every((run) => typeof run[name] === "number");
  const columns = Object.keys(runs[0]).filter((name) => name !== "params" && !(numeric(name) && runs.every((run) => run[name] === 0))).map((name) => ({
    id: name, head: name, kind: numeric(name) ? "" : "text", value: (run) => run[name], cell: (run) => (numeric(name) && !name.startsWith("seed") ? cost(run[name]) : String(run[name])),
  }));
  const table = dataTable({ label: "Every run", caption: `${many(runs.length, "run")}`, columns, rows: runs });
  const settings = new Map();
  for (const run of runs) settings.set(`${run.method}\n${run.params}`, [...(settings.get(`${run.method}\n${run.params}`) ?? []), `${run.dataset} ${run.seed}`]);
  return [
    h("h2", { tabindex: -1 }, "Provenance"),
    shared.map(([field, values]) => [h("h3", {}, SHARED[field] ?? field), h("ul", { class: "plain" }, values.map(([text, number]) => h("li", {}, text, h("span", { class: "soft" }, ` (${many(number, "run")})`))))]),
    datasets.map((data) => [
      h("h3", {}, `Data: ${data.name}`), ruleTable(data),
      data.warnings.length ? [h("h4", {}, "Warnings"), h("ul", { class: "plain" }, data.warnings.map((text) => h("li", {}, text)))] : null,
      h("dl", {}, data.facts.map(([name, text]) => [h("dt", {}, name), h("dd", {}, text)])),
    ]),
    h("h3", {}, "Every run"), table.element, copying(columns, table),
    h("h3", {}, "Settings of every run"),
    h("dl", {}, [...settings].map(([key, where]) => { const [method, params] = key.split("\n"); return [h("dt", {}, method), h("dd", {}, params, h("span", { class: "soft" }, ` (${where.length > 6 ? many(where.length, "run") : where.join(", ")})`))]; })),
  ];
}
