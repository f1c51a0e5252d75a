// What was written, case by case: chosen, filtered, searched. Texts are unpacked part by part, in the background.

const PER_PAGE = 10;
const searched = new Map(); // by "data/method": what is searched of each case, in lower case, as far as it is unpacked
let task = 0; // of the last drawing: an older one stops

// Rows that have texts, on any dataset: method numbers.
const writers = [...new Set(doc.held.flatMap((held) => held.texts.map((entry) => entry.method)))].sort((a, b) => a - b);
// Runs of ablations that have texts, likewise.
const ablated = [...new Set(doc.held.flatMap((held) => held.variants.map((entry) => entry.method)))].sort((a, b) => a - b);
const firstWriter = () => {
  const wrote = writers.filter((method) => doc.held.some((held) => held.texts.some((entry) => entry.method === method && entry.wrote)));
  return doc.spoken.length ? doc.spoken[0][0] : wrote.includes(doc.reference) ? doc.reference : wrote[0] ?? writers[0];
};

function chosenRows() {
  const datasets = state.rdata === "all" ? doc.datasets.map((_, i) => i) : [Number(state.rdata)];
  const methods = state.row === "all" ? writers : state.row === "ablations" ? ablated : [state.row === "first" ? firstWriter() : Number(state.row)];
  return datasets.flatMap((data) => methods.filter((method) => entryOf(data, method)).map((method) => [data, method]));
}

function besides(method) {
  if (state.beside === "none") return [];
  if (state.beside === "auto") return doc.spoken.filter(([a]) => a === method).map(([, b]) => b);
  return Number(state.beside) === method ? [] : [Number(state.beside)];
}

// Every case of the chosen rows that the filters let through, in the chosen order.
async function filtered() {
  const found = [];
  for (const [data, method] of chosenRows()) {
    const ranks = (await part(`index/${data}`)).ranks[method][0];
    const [cut, repeats] = ["cut", "repeats"].map((name) => flagged(data, method, name));
    for (let i = 0; i < ranks.length; i += 1) {
      if (state.outcome !== "all" && ranks[i] <= 10 !== (state.outcome === "hit")) continue;
      if (state.cut && cut.has(i) !== (state.cut === "yes")) continue;
      if (state.repeats && repeats.has(i) !== (state.repeats === "yes")) continue;
      found.push({ data, method, i, rank: ranks[i] });
    }
  }
  if (state.order === "best") found.sort((x, y) => x.rank - y.rank);
  if (state.order === "worst") found.sort((x, y) => y.rank - x.rank);
  return found;
}

// Unpacks the texts of one part and keeps what is searched of it.
async function prepare(data, method, k) {
  const key = `${data}/${method}`;
  if (!searched.has(key)) searched.set(key, []);
  const lines = searched.get(key);
  const size = doc.held[data].part;
  if (lines[k * size] !== undefined) return;
  const cases = await part(`index/${data}`);
  const texts = await part(`texts/${data}/${method}/${k}`);
  texts.forEach((text, j) => { lines[k * size + j] = `${text}\n${cases.titles[cases.target[k * size + j]]}`.toLowerCase(); });
}

// The rows whose text or target holds every word; `missing` are those whose texts aren't unpacked yet.
function matching(rows, words) {
  if (!words.length) return { found: rows, missing: 0 };
  let missing = 0;
  const found = rows.filter(({ data, method, i }) => {
    const line = searched.get(`${data}/${method}`)?.[i];
    if (line === undefined) missing += 1;
    return line !== undefined && words.every((word) => line.includes(word));
  });
  return { found, missing };
}

const wordsOf = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);

// Unpacks all texts of the chosen rows, a part at a time, so that the page stays quick; `after` runs behind each tenth part.
async function unpackAll(mine, after) {
  let parts = 0;
  for (const [data, method] of chosenRows()) {
    const { shown, part: size } = doc.held[data];
    for (let k = 0; k * size < shown; k += 1) {
      if (mine !== task) return;
      await prepare(data, method, k);
      parts += 1;
      if (parts % 10 === 0) await after();
      await new Promise((resolve) => setTimeout(resolve));
    }
  }
  if (mine === task) await after();
}

function reasoningsView() {
  const list = h("div", { id: "reasonings", "aria-busy": "true", tabindex: -1, role: "region", "aria-label": "Cases" });
  const said = h("p", { class: "notes", role: "status" }, "Unpacking …");
  const pager = h("div", { class: "buttons" });
  task += 1;
  const mine = task;
  let rows = [];
  let last = "";

  const draw = async () => {
    list.setAttribute("aria-busy", "true");
    const words = wordsOf(state.q);
    const { found, missing } = matching(rows, words);
    const pages = Math.max(1, Math.ceil(found.length / PER_PAGE));
    const page = Math.min(Number(state.page), pages);
    said.textContent = `${many(found.length, "reasoning")}${missing ? `; ${count(missing)} not searched yet` : ""}`;
    const shown = found.slice((page - 1) * PER_PAGE, page * PER_PAGE);
    const key = JSON.stringify([shown, words, pages]);
    if (key !== last) {
      const cards = await Promise.all(shown.map(({ data, method, i }) => caseCard(data, i, [method, ...besides(method)].filter((one) => entryOf(data, one) || rowOf(doc.datasets[data], one)), words)));
      if (mine !== task || words.join() !== wordsOf(state.q).join()) return; // something else is drawn meanwhile
      last = key;
      list.replaceChildren(...cards);
      const turn = (to) => () => { choose({ page: String(to) }); draw(); list.scrollIntoView(); list.focus({ preventScroll: true }); };
      pager.replaceChildren(...(pages > 1 ? [
        h("button", { type: "button", disabled: page === 1, onclick: turn(page - 1) }, "Previous"), ` page ${count(page)} of ${count(pages)} `,
        h("button", { type: "button", disabled: page === pages, onclick: turn(page + 1) }, "Next")] : []));
    }
    list.removeAttribute("aria-busy");
  };

  filtered().then(async (found) => {
    if (mine !== task) return;
    rows = found;
    await draw();
    await unpackAll(mine, () => (state.q ? draw() : null));
  });
  return [h("h2", { tabindex: -1 }, "Reasonings"), reasoningControls(draw), heldNote(), said, list, pager];
}

function reasoningControls(draw) {
  const redraw = (key) => (value) => { choose({ [key]: value, page: "1" }); show(); };
  const some = doc.datasets.length > 1 ? [["all", "all datasets"]] : [];
  const methods = [...writers.map((method) => [method, names[method]]), ...(writers.length > 1 ? [["all", "all rows that have texts"]] : []),
    ...ablated.map((run) => [run, runNames[run]]), ...(ablated.length > 1 ? [["ablations", "all runs of ablations"]] : [])];
  const row = state.row === "first" ? firstWriter() : state.row;
  const beside = [["auto", "its controls"], ["none", "nothing"], ...names.map((name, i) => [i, name]), ...ablated.map((run) => [run, runNames[run]])];
  const either = (yes, no) => [["", "either"], ["yes", yes], ["no", no]];
  const has = (name) => doc.held.some((held) => [...held.texts, ...held.variants].some((entry) => entry[name].length));
  const search = h("input", { type: "search", value: state.q, placeholder: "words in the text or in what was taken", oninput: (event) => { choose({ q: event.target.value, page: "1" }); draw(); } });
  return h("div", { class: "controls" },
    doc.datasets.length > 1 ? select("Dataset", state.rdata, [...doc.datasets.map((one, i) => [i, one.name]), ...some], redraw("rdata")) : null,
    select("Written by", row, methods, redraw("row")),
    select("Beside it", state.beside, doc.spoken.length ? beside : beside.slice(1), redraw("beside")),
    select("Outcome", state.outcome, [["all", "all"], ["hit", "hit: rank 1 to 10"], ["miss", "miss"]], redraw("outcome")),
    has("cut") ? select("Cut off", state.cut, either("cut off", "not cut off"), redraw("cut")) : null,
    has("repeats") ? select("Repetition", state.repeats, either("repeats itself", "doesn't"), redraw("repeats")) : null,
    select("Order", state.order, [["best", "best rank first"], ["worst", "worst rank first"], ["time", "by time"]], redraw("order")),
    h("label", { class: "grow" }, "Search", search));
}

// Ablations whose texts a page of this size has no room for.
function leftOut() {
  const less = doc.held.map((held, i) => [held.left_out, doc.datasets[i].name]).filter(([runs]) => runs.length);
  return less.map(([runs, name]) => ` Of ${name} the texts of ${runs.map((run) => runNames[run]).join("; ")} are left out, as there is no room for them.`);
}

function heldNote() {
  const less = doc.held.map((held, i) => [held, doc.datasets[i].name]).filter(([held]) => held.shown < held.of);
  const sample = less.map(([held, name]) => ` Of ${name} this page holds ${count(held.shown)} of ${count(held.of)} cases, a seeded sample.`);
  return h("p", { class: "notes" }, `Texts of training 1${less.length ? "" : ", all test cases"}. Cut off: stopped by the limit of tokens. Repeats itself: of all sequences of three words in a text, at least half occurred earlier in it.`, sample, leftOut());
}
