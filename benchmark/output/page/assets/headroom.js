// What choosing among a case's reasonings could gain: by an oracle, by rules and pickers, and how noisy the gradient of a step is.

const LESS_IS_BETTER = "log rank";
const betterOf = (statistic) => (statistic === LESS_IS_BETTER ? "Less is better." : "More is better.");
const share = (value) => `${Number((100 * value).toFixed(1))} %`;
const orNoEnd = (value) => (value === null ? "no end" : count(Math.round(value)));
const runOf = (run) => `${run.method}, seed ${run.seed}, commit ${run.commit.slice(0, 10)}`;

// The change of the log rank by how many reasonings an oracle chooses from.
function oracleFigure(measure) {
  const values = measure.oracle.map((row) => ({ label: String(row.samples), mean: [row.gain], low: [row.low ?? row.gain], high: [row.high ?? row.gain] }));
  const plot = named(byValue(values, 0, "1", endsOf(values, 0), figureWidth(620)), "Change of the log rank by the number of reasonings that an oracle chooses from");
  return h("figure", {}, h("h3", {}, "An oracle that knows the target"), plot,
    h("figcaption", {}, "Change of the log rank by the number of reasonings to choose from, with its 95 % interval over users. Less is better; the logarithm is the natural one, so that −.69 halves the rank. An oracle picks luck, too: it bounds what can be gained."));
}

function oracleTable(measure) {
  const columns = [
    { id: "samples", head: "best of", fixed: true, value: (row) => row.samples },
    { id: "gain", head: "change of the log rank, 95 % interval", fixed: true, value: (row) => `${signed(row.gain)}${row.low === null ? "" : ` [${signed(row.low)}, ${signed(row.high)}]`}` },
    ...Object.keys(measure.oracle[0].statistics).map((name) => ({ id: name, head: name, fixed: true, value: (row) => row.statistics[name], text: (row) => fixed(row.statistics[name]), cell: (row) => fixed(row.statistics[name]) })),
  ];
  const table = dataTable({ label: "An oracle that knows the target", columns, rows: measure.oracle });
  return [table.element, copying(columns, table)];
}

// One statistic's gains of all that chooses without the target.
function choiceTable(rows, statistic) {
  const domain = scaleOfDifferences(rows.map((row) => ({ ...row, difference: row.gain })));
  const interval = (row) => (row.low === null ? "no case differs" : `[${signed(row.low)}, ${signed(row.high)}]`);
  const columns = [
    { id: "picker", head: "chosen by", kind: "text", value: (row) => row.picker },
    { id: "gain", head: "change, 95 % interval", value: (row) => row.gain, text: (row) => `${signed(row.gain)} ${interval(row)}`,
      cell: (row) => h("span", { class: "value long" }, bar({ mean: row.gain, low: row.low, high: row.high, domain, kind: "plain", zero: true, unknown: row.low === null, long: true }), h("span", {}, signed(row.gain)), h("small", {}, interval(row))) },
    { id: "random", head: "a random one", value: (row) => row.random, text: (row) => fixed(row.random), cell: (row) => fixed(row.random) },
    { id: "picked", head: "the chosen one", value: (row) => row.picked, text: (row) => fixed(row.picked), cell: (row) => fixed(row.picked) },
    { id: "p", head: "p, not corrected", value: (row) => row.p ?? undefined, text: (row) => probability(row.p), cell: (row) => probability(row.p) },
  ];
  const table = dataTable({ label: "Choices without the target", caption: `Change of ${statistic} over a random reasoning. ${betterOf(statistic)} ${ends(domain)}`, columns, rows });
  return [table.element, copying(columns, table)];
}

function choicePart(measure) {
  const rows = [...measure.pickers, ...measure.lent];
  const statistics = [...new Set(rows.map((row) => row.statistic))];
  const statistic = statistics.includes(state.statistic) ? state.statistic : statistics[0];
  const lent = measure.lent.length ? ` In the row “${measure.lent[0].picker}” a case is read with the reasoning that was best for the user's case before it, and with random ones of that case: ${many(measure.lent_cases, "case")} of ${many(measure.lent_users, "user")}.` : "";
  return [
    h("h3", {}, "What can choose without the target"),
    h("div", { class: "controls" }, select("Statistic", statistic, statistics.map((name) => [name, name]), (value) => { choose({ statistic: value }); show(); })),
    choiceTable(rows.filter((row) => row.statistic === statistic), statistic),
    h("p", { class: "notes" }, `Intervals are over users, of one trained model. Learned pickers chose for users that they had not learned from. p is of each test alone: of ${rows.length} such tests one in twenty is below .05 by chance.${lent}`),
  ];
}

function gradientPart(measure) {
  const range = (row, name, of) => `${of(row[name])} [${of(row[`${name}_low`])}, ${of(row[`${name}_high`])}]`;
  const signal = (row) => (row.low === null ? share(row.signal) : `${share(row.signal)} [${share(row.low)}, ${share(row.high)}]`);
  const columns = [
    { id: "term", head: "term of the loss", kind: "text", fixed: true, value: (row) => row.term },
    { id: "signal", head: "share of the signal", fixed: true, value: signal },
    { id: "scale", head: "noise scale, cases", fixed: true, value: (row) => range(row, "scale", orNoEnd) },
    { id: "steps", head: `steps of ${many(measure.size, "case")} for one without noise`, fixed: true, value: (row) => range(row, "steps", orNoEnd) },
  ];
  const table = dataTable({ label: "Signal and noise of the gradient", columns, rows: measure.terms });
  return [
    h("h3", {}, "Signal and noise of the training's gradient"),
    table.element, copying(columns, table),
    h("p", { class: "notes" }, `${count(measure.batches)} batches of ${many(measure.size, "case")} of ${count(measure.cases)}, ${many(measure.samples, "reasoning")} each, of ${runOf(measure.run)}. What the batches' gradients have in common is the signal. A step of as many cases as the noise scale holds as much signal as noise. Intervals of 95 % by the jackknife over batches. No end: a signal can't be told from none.`),
  ];
}

function headroomView() {
  const all = doc.headroom.datasets;
  const one = all[Number(state.hdata)] ?? all[0];
  const measure = one?.headroom;
  const within = measure ? Object.entries(measure.within).map(([name, value]) => `${share(value)} of the variance of ${name}`).join(" and ") : "";
  return [
    h("h2", { tabindex: -1 }, "What choosing among reasonings could gain"),
    all.length > 1 ? h("div", { class: "controls" }, select("Dataset", state.hdata, all.map((part, i) => [i, part.name]), (value) => { choose({ hdata: value }); show(); })) : null,
    measure ? h("p", {}, `${measure.run.dataset}, ${runOf(measure.run)}: ${many(measure.cases, "validation case")} of ${many(measure.users, "user")}, ${many(measure.samples, "sampled reasoning")} each. ${within} lie within a case. These measures are exploratory.`) : null,
    measure ? [oracleFigure(measure), oracleTable(measure), choicePart(measure)] : null,
    one?.gradients ? gradientPart(one.gradients) : null,
    doc.headroom.left_out.map((text) => h("p", { class: "notes" }, text)),
  ];
}
