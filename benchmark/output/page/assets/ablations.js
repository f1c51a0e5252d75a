// Claims with their verdicts, and each factor: its values against the base, and the curves of its trainings.

const VERDICTS = { supports: "✓\u00a0supports", contradicts: "✗\u00a0contradicts", "no effect worth having": "≈\u00a0no effect worth having", "can't tell": "?\u00a0can't tell", "not run": "–\u00a0not run", "not judged": "–\u00a0not judged" };
const COUNTED = { supports: "supported", contradicts: "contradicted", "no effect worth having": "without an effect worth having", "can't tell": "undecided" };
const PER_UNIT = "Bars of one metric share a scale.";

// The column of the differences, empty for a claim that wasn't run or can't be judged.
function differenceIfAny(domain) {
  const column = differenceColumn(domain);
  const ifAny = (show) => (row) => (row.difference === null ? "" : show(row));
  return { ...column, value: (row) => row.difference ?? undefined, text: ifAny(column.text), cell: ifAny(column.cell) };
}

// The scale of each row's difference: that of all rows of its unit, since values of two units can't share one.
function scaleByUnit(rows, unit) {
  const scales = new Map([...new Set(rows.map(unit))].map((name) => [name, scaleOfDifferences(rows.filter((row) => unit(row) === name))]));
  return (row) => scales.get(unit(row));
}

function claimsTable(rows, label) {
  const domain = scaleByUnit(rows, (row) => row.metric);
  const several = new Set(rows.map((row) => row.dataset)).size > 1;
  const columns = [
    { id: "says", head: "claim", kind: "prose", once: (row) => row.claim, value: (row) => row.says, cell: (row) => [row.says, h("small", {}, `${row.title}, ${several ? "" : `${row.dataset}, `}${many(row.seeds, "training")}`)] },
    ...(several ? [{ id: "dataset", head: "dataset", kind: "text", value: (row) => row.dataset }] : []),
    { id: "verdict", head: "verdict", kind: "text", value: (row) => row.verdict, cell: (row) => [h("span", { class: "verdict" }, VERDICTS[row.verdict] ?? row.verdict), row.missing ? h("small", {}, row.missing) : null] },
    { id: "metric", head: "metric", kind: "text", value: (row) => row.metric },
    differenceIfAny(domain),
    { id: "p_holm", head: "p, Holm", value: (row) => row.p_holm ?? undefined, text: (row) => probability(row.p_holm), cell: (row) => probability(row.p_holm) },
    { id: "detectable", head: "smallest detectable", value: (row) => row.detectable ?? undefined, text: (row) => fixed(row.detectable), cell: (row) => fixed(row.detectable) || (row.missing ? "" : "unknown") },
  ];
  const table = dataTable({ label, caption: `${BAND} ${PER_UNIT}`, columns, rows });
  return [table.element, copying(columns, table), h("details", {}, h("summary", {}, "Each claim in sentences"), claimsInSentences(rows))];
}

// Each claim once, with a line of its own for each dataset, or for those of which the same is said.
function claimsInSentences(rows) {
  return [...new Set(rows.map((row) => row.claim))].map((number) => doc.claims.sentences[number]).map((claim) => [
    h("p", {}, h("strong", {}, `${claim.says} `), claim.expected),
    h("ul", { class: "plain" }, claim.lines.map(([text, verdict]) => h("li", {}, `${text} `, h("strong", {}, `Verdict: ${verdict}.`)))),
  ]);
}

// The claims that were registered before their runs, each judged once over all datasets and trainings.
function registeredTable(rows) {
  const domain = scaleByUnit(rows, (row) => row.statistic);
  const ran = rows.some((row) => row.difference !== null);
  const columns = [
    { id: "says", head: "claim", kind: "prose", value: (row) => row.says, cell: (row) => [row.says, h("small", {}, `${row.datasets.replaceAll(" ", ", ")}; ${many(row.trainings, "training")}`)] },
    { id: "verdict", head: "verdict", kind: "text", value: (row) => row.verdict, cell: (row) => [h("span", { class: "verdict" }, VERDICTS[row.verdict] ?? row.verdict), row.missing ? h("small", {}, row.missing) : null] },
    { id: "statistic", head: "statistic", kind: "text", value: (row) => row.statistic },
    { id: "worth", head: "smallest effect worth having", value: (row) => row.smallest_effect, text: (row) => `${100 * row.smallest_effect} %`, cell: (row) => `${cost(100 * row.smallest_effect)} %` },
    ...(ran ? [
      differenceIfAny(domain),
      { id: "p_holm", head: "p, Holm", value: (row) => row.p_holm ?? undefined, text: (row) => probability(row.p_holm), cell: (row) => probability(row.p_holm) },
      { id: "detectable", head: "smallest detectable", value: (row) => row.detectable ?? undefined, text: (row) => fixed(row.detectable), cell: (row) => fixed(row.detectable) }] : []),
  ];
  const table = dataTable({ label: "Registered claims", caption: ran ? `${BAND} ${PER_UNIT}` : "", columns, rows });
  return [table.element, copying(columns, table)];
}

function counted(rows) {
  const found = Object.keys(VERDICTS).map((verdict) => [verdict, rows.filter((row) => row.verdict === verdict).length]).filter(([, number]) => number);
  return h("p", {}, `${many(rows.length, "claim")}: ${found.map(([verdict, number]) => `${number} ${COUNTED[verdict] ?? verdict}`).join(", ")}.`);
}

// Registered and exploratory claims, never mixed. of: whether a claim is shown.
function claimsPart(of = () => true) {
  const [registered, others] = [doc.registered, doc.claims].map((all) => (all ? all.rows.filter(of) : []));
  return [
    registered.length ? [h("h3", {}, "Registered before their runs"), counted(registered), registeredTable(registered), h("p", { class: "notes" }, doc.registered.rule)] : null,
    others.length ? [h("h3", {}, "Exploratory: not registered before their runs"), counted(others), claimsTable(others, "Exploratory claims"), h("details", {}, h("summary", {}, "How a verdict is reached"), h("p", { class: "notes" }, doc.claims.rule))] : null,
  ];
}

// What a value's row says of its difference from the base; null for the base.
const differenceOf = (metric) => (row, name) => row.difference?.[name][metric] ?? null;

// scale, domain: of the means and of the differences, the same on all datasets.
function factorTable(factor, dataset, metric, scale, domain) {
  const rows = dataset.values.map((value) => ({ ...value, name: value.label === factor.base ? `${value.label} (base)` : value.label }));
  const of = differenceOf(metric);
  const bounds = (row) => `[${signed(of(row, "low"))}, ${signed(of(row, "high"))}]`;
  const columns = [
    { id: "value", head: "value", kind: "text", fixed: true, value: (row) => row.name },
    { id: "mean", head: doc.metrics[metric], value: (row) => row.mean[metric], text: (row) => fixed(row.mean[metric]),
      cell: (row) => h("span", { class: "value" }, bar({ mean: row.mean[metric], low: row.low[metric], high: row.high[metric], domain: scale, kind: row.label === factor.base ? "base" : "changed" }), h("span", {}, fixed(row.mean[metric]) + (row.sd[metric] ? ` ± ${fixed(row.sd[metric])}` : "")), h("small", {}, `[${fixed(row.low[metric])}, ${fixed(row.high[metric])}]`)) },
    { id: "difference", head: "minus the base's, 95 % interval", value: (row) => of(row, "difference") ?? undefined, text: (row) => (row.difference ? `${signed(of(row, "difference"))} ${bounds(row)}` : ""),
      cell: (row) => (row.difference ? h("span", { class: "value long" }, bar({ mean: of(row, "difference"), low: of(row, "low"), high: of(row, "high"), domain, kind: "changed", zero: true, band: of(row, "detectable"), open: of(row, "p_holm") >= doc.alpha, long: true }), h("span", {}, signed(of(row, "difference"))), h("small", {}, bounds(row))) : "") },
    { id: "p_holm", head: "p, Holm", value: (row) => of(row, "p_holm") ?? undefined, text: (row) => probability(of(row, "p_holm")), cell: (row) => probability(of(row, "p_holm")) },
    { id: "detectable", head: "smallest detectable", value: (row) => of(row, "detectable") ?? undefined, text: (row) => fixed(of(row, "detectable")), cell: (row) => (row.difference ? fixed(of(row, "detectable")) || "unknown" : "") },
  ];
  const table = dataTable({ label: `${factor.title}, ${dataset.name}`, caption: dataset.name, columns, rows });
  return [table.element, copying(columns, table)];
}

function factorPart(factor, metric) {
  if (!factor.datasets.length) return null;
  const labels = factor.datasets[0].values.map((value) => value.label);
  const styles = styleOf(labels, factor.base);
  const every = factor.datasets.flatMap((dataset) => dataset.values);
  const scale = scaleOf(every, metric);
  const of = differenceOf(metric);
  const domain = scaleOfDifferences(every.map((row) => Object.fromEntries(["difference", "low", "high", "detectable"].map((name) => [name, of(row, name)]))));
  const curved = factor.datasets.some((dataset) => dataset.curves.length);
  const read = [`Filled: differs from the base after Holm's correction. ${BAND} ${ends(domain)}`,
    factor.numeric ? " Below a table its values in their order, each with its 95 % interval over users; diamond and dashed line: the base." : "",
    curved ? ` Curves: mean over a step's rollouts, of training users.${factor.seeds > 1 ? " Bands: lowest to highest training." : ""}` : "",
    factor.datasets.length > 1 ? " All datasets share a scale." : ""];
  return [h("p", { class: "notes" }, read), factor.datasets.map((dataset) => {
    const drawn = new Set(dataset.curves.flatMap((panel) => panel.lines.map((line) => line.label)));
    return [
      factorTable(factor, dataset, metric, scale, domain),
      factor.numeric ? h("figure", {}, byValue(dataset.values, metric, factor.base, endsOf(every, metric), figureWidth(620)), h("figcaption", {}, `${doc.metrics[metric]} by value on ${dataset.name}`)) : null,
      dataset.curves.length ? h("figure", {}, h("h3", {}, `Training on ${dataset.name}`), legend(labels.filter((label) => drawn.has(label)), styles, factor.base),
        h("div", { class: "panels" }, dataset.curves.map((panel) => h("div", {}, h("p", { class: "soft" }, panel.title), curves(panel, styles, levelsOf(factor, panel.title), panelWidth(dataset.curves.length)))))) : null,
    ];
  })];
}

// The ends of every interval of these values: one scale for what is compared.
const endsOf = (values, metric) => [Math.min(...values.map((value) => value.low[metric])), Math.max(...values.map((value) => value.high[metric]))];

// The lowest and the highest level of a panel's curves on all datasets.
function levelsOf(factor, title) {
  const lines = factor.datasets.flatMap((dataset) => dataset.curves.filter((panel) => panel.title === title).flatMap((panel) => panel.lines));
  const known = lines.flatMap((line) => [...line.low, ...line.high]).filter((value) => value !== null);
  return [Math.min(...known), Math.max(...known)];
}

const claimed = (doc.claims?.rows.length ?? 0) + (doc.registered?.rows.length ?? 0);

function ablationsView() {
  const redraw = (key) => (value) => { choose({ [key]: value }); show(); };
  const options = [...(claimed ? [["claims", `all claims (${claimed})`]] : []), ...doc.ablations.map((one, i) => [i, one.title])];
  const shown = select("Shown", state.factor, options, redraw("factor"));
  if (claimed && (state.factor === "claims" || !doc.ablations.length)) return [h("h2", { tabindex: -1 }, "Claims"), h("div", { class: "controls" }, shown), claimsPart()];
  const factor = doc.ablations[Number(state.factor)] ?? doc.ablations[0];
  const metric = metricAt(state.pairkind, state.paircut);
  return [
    h("h2", { tabindex: -1 }, `Ablation: ${factor.title}`),
    h("div", { class: "controls" }, shown,
      select("Metric", state.pairkind, [["NDCG", "NDCG"], ["Hit", "Hit"]], redraw("pairkind")),
      select("Cut-off", state.paircut, doc.cutoffs.map((k) => [k, `@${k}`]), redraw("paircut"))),
    factorPart(factor, metric),
    failedList(factor.failed),
    doc.claims ? claimsPart((row) => row.factor === factor.name && "metric" in row) : null,
    h("details", {}, h("summary", {}, "How the numbers were made"), factor.notes.map((note) => h("p", { class: "notes" }, note))),
  ];
}
