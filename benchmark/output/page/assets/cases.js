// One case as a person reads it: what was taken before, what each method wrote and recommended, what was taken next.

// The cases of a dataset with the words and flags of each method that has texts.
const entryOf = (data, method) => [...doc.held[data].texts, ...doc.held[data].variants].find((entry) => entry.method === method);
const flags = new Map();

function flagged(data, method, name) {
  const key = `${data}/${method}/${name}`;
  if (!flags.has(key)) flags.set(key, new Set(entryOf(data, method)?.[name]));
  return flags.get(key);
}

// What one part of PART cases holds of a case: its history, and by method its top items.
async function detailOf(data, i) {
  const size = doc.held[data].part;
  const found = await part(`cases/${data}/${Math.floor(i / size)}`);
  return { history: found.history[i % size], top: (method) => found.top[method][i % size] };
}

async function textOf(kind, data, method, i) {
  const size = doc.held[data].part;
  return (await part(`${kind}/${data}/${method}/${Math.floor(i / size)}`))[i % size];
}

function ago(seconds) {
  const units = [[31557600, "year"], [2629800, "month"], [86400, "day"], [3600, "hour"], [60, "minute"]];
  for (const [size, unit] of units) if (seconds >= size) return `${many(Math.floor(seconds / size), unit)} before`;
  return seconds > 0 ? `${many(seconds, "second")} before` : "the same second";
}

const RECENT = 5; // titles of a history that are shown at once

function historyOf(cases, [items, ratings, times]) {
  const rated = ratings.some((rating) => rating !== null);
  const rows = items.map((item, k) => h("tr", {}, h("td", {}, cases.titles[item]), rated ? h("td", {}, ratings[k] === null ? "" : String(ratings[k])) : null, h("td", { class: "when" }, ago(times[k])))).reverse();
  const table = (some) => h("table", { class: "history" }, h("thead", {}, h("tr", {}, ["title", ...(rated ? ["rating"] : []), "when"].map((word) => h("th", { scope: "col" }, word)))), h("tbody", {}, some));
  const rest = rows.slice(RECENT);
  return [table(rows.slice(0, RECENT)), rest.length ? h("details", {}, h("summary", {}, `${rest.length} earlier`), table(rest)) : null];
}

// The text with each of the words looked for marked.
function markedText(text, words) {
  if (!words.length) return [text];
  const pattern = new RegExp(words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|"), "gi");
  const out = [];
  let end = 0;
  for (const found of text.matchAll(pattern)) {
    out.push(text.slice(end, found.index), h("mark", {}, found[0]));
    end = found.index + found[0].length;
  }
  return [...out, text.slice(end)];
}

async function writtenBy(data, cases, detail, method, i, words) {
  const rank = cases.ranks[method][0][i];
  const parts = [h("h4", {}, methodName(method)), h("div", {},
    h("span", { class: rank <= 10 ? "tag hit" : "tag" }, rank <= 10 ? `hit: rank ${rank}` : `miss: rank ${count(rank)} of ${count(cases.candidates[i])}`),
    flagged(data, method, "cut").has(i) ? h("span", { class: "tag" }, "cut off") : null,
    flagged(data, method, "repeats").has(i) ? h("span", { class: "tag" }, "repeats itself") : null)];
  const entry = entryOf(data, method);
  if (entry) {
    const text = await textOf("texts", data, method, i);
    parts.push(text ? h("div", { class: "written" }, markedText(text, words)) : h("p", { class: "soft" }, "Writes no reasoning."));
  }
  parts.push(h("h4", {}, "Recommended"), h("ol", {}, detail.top(method).map((item) => (item === cases.target[i] ? h("li", { class: "taken" }, `${cases.titles[item]} (taken)`) : h("li", {}, cases.titles[item])))));
  if (entry) {
    const prompt = h("pre");
    const load = async (event) => { if (event.target.open && !prompt.textContent) prompt.textContent = await textOf("prompts", data, entry.prompts ?? method, i); };
    parts.push(h("details", { ontoggle: load }, h("summary", {}, "Prompt as the model got it"), prompt));
  }
  return h("div", {}, parts);
}

async function caseCard(data, i, methods, words = [], said = "") {
  const [cases, detail] = await Promise.all([part(`index/${data}`), detailOf(data, i)]);
  const columns = await Promise.all(methods.map((method) => writtenBy(data, cases, detail, method, i, words)));
  return h("article", { class: "case", style: `--written: ${methods.length}` },
    h("h3", {}, `Taken next: `, markedText(cases.titles[cases.target[i]], words)),
    h("p", { class: "soft" }, `${doc.datasets[data].name}, case ${cases.case[i]}, user ${cases.user[i]}${said}`),
    h("div", { class: "columns" }, h("div", {}, h("h4", {}, "Taken before, newest first"), historyOf(cases, detail.history)), columns));
}
