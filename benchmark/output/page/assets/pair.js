// Two methods: paired differences over all cases, by slice, and the cases in which they differ most.

const SHOWN = 3;
const FEW = 25; // users; `pairs.FEW`
const APART = "not told apart"; // the verdict on two methods whose difference is no larger than chance makes it
const BAND = "Grey band: true differences that would often have been missed.";

function verdictOf(one, metric, a, b) {
  if (one.p_holm[metric] === null) return "not tested";
  if (one.p_holm[metric] >= doc.alpha) return APART;
  return `${names[one.difference[metric] > 0 ? a : b]} ranks better`;
}

// The difference with its bar and interval, in one cell. domain: the scale of the bars, or a function from a row to its scale.
function differenceColumn(domain) {
  const scale = typeof domain === "function" ? domain : () => domain;
  const interval = (row) => (row.low === null ? (row.users < FEW ? "too few users" : "no case differs") : `[${signed(row.low)}, ${signed(row.high)}]`);
  return {
    id: "difference", head: "difference, 95 % interval", value: (row) => row.difference,
    text: (row) => `${signed(row.difference)} ${interval(row)}`,
    cell: (row) => h("span", { class: "value long" }, bar({ mean: row.difference, low: row.low, high: row.high, domain: scale(row), kind: "plain", zero: true, unknown: row.low === null, band: row.detectable ?? null, long: true }), h("span", {}, signed(row.difference)), h("small", {}, interval(row))),
  };
}

// A row per dataset that has both, and one over all.
function rowsOfPair(a, b, metric) {
  return sections.filter((section) => hasBoth(section, a, b)).map((section) => {
    const one = pairOf(section, a, b);
    const at = (name) => one[name][metric];
    return { section, name: section.name, a: rowOf(section, a).mean[metric], b: rowOf(section, b).mean[metric], difference: at("difference"), low: at("low"), high: at("high"), p: at("p"), p_holm: at("p_holm"), detectable: at("detectable"), verdict: verdictOf(one, metric, a, b) };
  });
}

// A dataset's comparison in a sentence: the verdict, the difference, and how small a difference could have been seen.
function pairInWords(row, a, b, metric) {
  const more = row.detectable === null || row.p_holm < doc.alpha ? "" : ` A true difference of ${fixed(row.detectable)} would have been found in ${100 * doc.power} % of such runs; a smaller one may be there.`;
  const interval = row.low === null ? "no user's value differs" : `95 % interval ${signed(row.low)} to ${signed(row.high)}`;
  const tested = row.p_holm === null ? "" : `; p ${probability(row.p_holm)} after Holm's correction`;
  return h("li", {}, h("strong", {}, `${row.name}: ${row.verdict}. `), `${doc.metrics[metric]} of ${names[a]} minus ${names[b]} is ${signed(row.difference)}, ${interval}${tested}.${more}`);
}

function overAllCases(rows, domain, a, b, metric) {
  const columns = [
    { id: "name", head: "dataset", kind: "text", value: (row) => row.name },
    differenceColumn(domain),
    { id: "verdict", head: "verdict", kind: "text", value: (row) => row.verdict, cell: (row) => h("span", { class: "verdict" }, row.verdict) },
    { id: "a", head: names[a], value: (row) => row.a, text: (row) => fixed(row.a), cell: (row) => fixed(row.a) },
    { id: "b", head: names[b], value: (row) => row.b, text: (row) => fixed(row.b), cell: (row) => fixed(row.b) },
    { id: "p", head: "p", value: (row) => row.p ?? undefined, text: (row) => probability(row.p), cell: (row) => probability(row.p) },
    { id: "p_holm", head: "p, Holm", value: (row) => row.p_holm ?? undefined, text: (row) => probability(row.p_holm), cell: (row) => probability(row.p_holm) },
    { id: "detectable", head: "smallest detectable", value: (row) => row.detectable ?? undefined, text: (row) => fixed(row.detectable), cell: (row) => fixed(row.detectable) || "unknown: no user differs" },
  ];
  const table = dataTable({ label: "Over all cases", caption: `${doc.metrics[metric]} of ${names[a]} minus ${names[b]}. ${BAND} ${ends(domain)}`, columns, rows });
  return [h("ul", { class: "said" }, rows.map((row) => pairInWords(row, a, b, metric))), table.element, copying(columns, table)];
}

function rowsOfSlices(a, b) {
  const both = doc.datasets.filter((section) => hasBoth(section, a, b));
  const values = both.map((section) => slicesOf(section, a, b));
  return both.flatMap((section, d) => section.slices.slices.map((slice, i) => {
    const [difference, low, high] = values[d][i];
    const [x, y] = [a, b].map((method) => section.slices.means[i][section.rows.indexOf(rowOf(section, method))]);
    return { ...slice, dataset: section.name, order: `${d}${slice.group}${i}`, a: x, b: y, difference, low, high };
  }));
}

function bySlices(rows, domain, a, b) {
  return [...new Set(rows.map((row) => row.group))].map((group) => {
    const columns = [
      { id: "slice", head: "slice", kind: "text", fixed: true, value: (row) => row.name.replaceAll("-", "\u2011") }, // "10-19" stays on one line
      ...(doc.datasets.length > 1 ? [{ id: "dataset", head: "dataset", kind: "text", fixed: true, value: (row) => row.dataset }] : []),
      differenceColumn(domain),
      { id: "cases", head: "cases", value: (row) => row.cases, cell: (row) => count(row.cases) },
      { id: "users", head: "users", value: (row) => row.users, cell: (row) => count(row.users) },
      { id: "a", head: names[a], value: (row) => row.a, cell: (row) => fixed(row.a) },
      { id: "b", head: names[b], value: (row) => row.b, cell: (row) => fixed(row.b) },
    ];
    return [h("h4", {}, `By ${group}`), dataTable({ label: `By ${group}`, columns, rows: rows.filter((row) => row.group === group) }).element];
  });
}

// Per case the mean over trainings of NDCG@10 of both, and the mean ranks for what no list of ten shows.
function apart(cases, a, b) {
  const gain = (rank) => (rank <= 10 ? 1 / Math.log2(1 + rank) : 0);
  const mean = (method, of, i) => cases.ranks[method].reduce((sum, seed) => sum + of(seed[i]), 0) / cases.ranks[method].length;
  return cases.case.map((_, i) => ({ i, gain: mean(a, gain, i) - mean(b, gain, i), logs: mean(b, Math.log, i) - mean(a, Math.log, i), ranks: [a, b].map((method) => mean(method, Number, i)) }))
    .sort((x, y) => y.gain - x.gain || y.logs - x.logs || x.i - y.i);
}

async function extremes(data, a, b) {
  if (!hasBoth(doc.datasets[data], a, b)) return [`Only one of them has a result on ${doc.datasets[data].name}.`];
  const cases = await part(`index/${data}`);
  const sorted = apart(cases, a, b);
  const better = sorted.filter((one) => one.gain > 0).slice(0, SHOWN);
  const worse = sorted.filter((one) => one.gain < 0).slice(-SHOWN).reverse();
  const cards = async (found, title) => (found.length ? [h("h4", {}, title), await Promise.all(found.map((one) => caseCard(data, one.i, [a, b], [], `; mean rank over trainings: ${names[a]} ${cost(one.ranks[0])}, ${names[b]} ${cost(one.ranks[1])}`)))] : []);
  return [...(await cards(better, `${names[a]} ahead most`)), ...(await cards(worse, `${names[b]} ahead most`))];
}

function pairView() {
  const [a, b, on] = [Number(state.a), Number(state.b), Number(state.on)];
  const metric = metricAt(state.pairkind, state.paircut);
  const options = names.map((name, i) => [i, name]);
  const [rows, slices] = [rowsOfPair(a, b, metric), rowsOfSlices(a, b)];
  const domain = scaleOfDifferences(metric === doc.main ? [...rows, ...slices] : rows); // slices are of the main metric
  const redraw = (key) => (value) => { choose({ [key]: value }); show(); };
  const out = [
    h("h2", { tabindex: -1 }, `${names[a]} minus ${names[b]}`),
    h("div", { class: "controls" },
      select("Method", a, options.filter(([i]) => i !== b), redraw("a")), select("minus", b, options.filter(([i]) => i !== a), redraw("b")),
      h("button", { type: "button", onclick: () => { choose({ a: state.b, b: state.a }); show(); } }, "Swap"),
      select("Metric", state.pairkind, [["NDCG", "NDCG"], ["Hit", "Hit"]], redraw("pairkind")),
      select("Cut-off", state.paircut, doc.cutoffs.map((k) => [k, `@${k}`]), redraw("paircut"))),
    h("h3", {}, "Over all cases"), overAllCases(rows, domain, a, b, metric),
    h("h3", {}, `NDCG@10 by slice of the cases`),
    h("p", { class: "notes" }, `${ends(metric === doc.main ? domain : scaleOfDifferences(slices))} No interval is corrected for the number of slices; a slice of fewer than ${FEW} users has none, since so few say too little.`),
    bySlices(slices, metric === doc.main ? domain : scaleOfDifferences(slices), a, b),
    h("h3", {}, "The cases with the largest differences"),
  ];
  const held = doc.held[on];
  const place = h("div", { "aria-busy": "true" }, "Unpacking …");
  if (doc.datasets.length > 1) out.push(h("div", { class: "controls" }, select("Dataset", on, doc.datasets.map((one, i) => [i, one.name]), redraw("on"))));
  out.push(h("p", { class: "notes" }, `By NDCG@10, a mean over each method's trainings; shown is what training 1 recommended.${held.shown < held.of ? ` Of the ${count(held.shown)} of ${count(held.of)} cases that this page holds.` : ""}`), place);
  extremes(on, a, b).then((found) => { place.replaceChildren(...(found.length ? found.flat(2) : ["No case differs."])); place.removeAttribute("aria-busy"); });
  return out;
}
