// The document, the parts that are unpacked when somebody looks at them, and what is chosen, which the address keeps.

const doc = JSON.parse(document.getElementById("document").textContent);
const sections = doc.overall ? [doc.overall, ...doc.datasets] : doc.datasets;
const names = doc.methods.map((method) => method.name);
// Of methods, and behind them of ablations' runs, which stand among the reasonings alone.
const runNames = [...names, ...doc.variants.map((variant) => variant.name)];
// Whether the baselines are held against this method; ablations' runs, whose numbers lie behind the methods', are of no kind.
const isReference = (number) => doc.methods[number]?.kind === "reference";
const metricAt = (kind, cutoff) => doc.metrics.indexOf(`${kind}@${cutoff}`);

const unpacked = new Map();

// A part by its name, such as "index/0"; unpacked once.
function part(name) {
  if (!unpacked.has(name)) unpacked.set(name, unpack(name));
  return unpacked.get(name);
}

async function unpack(name) {
  const element = document.querySelector(`script[data-part="${name}"]`);
  const text = element.textContent;
  element.remove(); // it is kept once
  const bytes = Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

// One comparison a - b of a section: the numbers of `pairs_of`, turned round where it holds b - a.
function pairOf(section, a, b) {
  const found = section.pairs.find((one) => (one.a === a && one.b === b) || (one.a === b && one.b === a));
  if (!found || found.a === a) return found;
  const turn = (values) => values.map((value) => (value === null ? null : -value));
  return { ...found, a, b, difference: turn(found.difference), low: turn(found.high), high: turn(found.low) };
}

// The row of a method in a section; undefined where it has none there.
const rowOf = (section, method) => section.rows.find((row) => row.method === method);
const hasBoth = (section, a, b) => rowOf(section, a) !== undefined && rowOf(section, b) !== undefined;

// By slice: [difference, low, high] of a - b, in the order of section.slices.slices.
function slicesOf(section, a, b) {
  const place = section.pairs.findIndex((one) => (one.a === a && one.b === b) || (one.a === b && one.b === a));
  const turned = section.pairs[place].a === b;
  const turn = (value) => (value === null ? null : -value);
  return section.slices.differences.map((all) => (turned ? [turn(all[place][0]), turn(all[place][2]), turn(all[place][1])] : all[place]));
}

// The pair that a comparison begins with: what the page speaks of first, or the reference and the best other row, or the best two.
const byMean = [...sections[0].rows].sort((a, b) => b.mean[doc.main] - a.mean[doc.main]).map((row) => row.method);
const firstOf = doc.reference ?? byMean[0];
const partner = doc.spoken[0] ?? [firstOf, byMean.find((i) => i !== firstOf) ?? names.findIndex((_, i) => i !== firstOf)];
const STARTS = {
  view: "leaderboard",
  dataset: doc.overall ? "all" : "0", // of the leaderboard
  kind: "NDCG", cutoff: "10", filter: "", group: "all", costs: "few",
  a: String(partner[0]), b: String(partner[1]),
  pairkind: "NDCG", paircut: "10", on: "0",
  factor: doc.claims || doc.registered ? "claims" : "0",
  hdata: "0", statistic: "log rank",
  rdata: "0", row: "first", beside: "auto", q: "", outcome: "all", cut: "", repeats: "", order: "best", page: "1",
};
const state = { ...STARTS };

function readAddress() {
  const given = new URLSearchParams(location.hash.replace(/^#/, ""));
  for (const key of Object.keys(STARTS)) state[key] = given.get(key) ?? STARTS[key];
}

function address(changes) {
  const wanted = new URLSearchParams();
  for (const [key, value] of Object.entries({ ...state, ...changes })) if (value !== STARTS[key]) wanted.set(key, value);
  return `#${wanted}`;
}

// Sets what is chosen and remembers it in the address. Another view is a new entry of the history, to which "back" returns.
function choose(changes) {
  const kept = address(changes);
  const turned = (changes.view ?? state.view) !== state.view;
  Object.assign(state, changes);
  try {
    history[turned ? "pushState" : "replaceState"](null, "", kept || "#");
  } catch {
    // A page inside another one may have no address of its own.
  }
}
