// Which view is shown, and light or dark.

const VIEWS = {
  leaderboard: ["Leaderboard", leaderboardView, true],
  pair: ["Two methods", pairView, names.length > 1],
  thinking: ["Thinking", thinkingView, Boolean(doc.thinking)],
  ablations: ["Ablations", ablationsView, doc.ablations.length > 0 || claimed > 0],
  headroom: ["Headroom", headroomView, Boolean(doc.headroom)],
  reasonings: ["Reasonings", reasoningsView, writers.length > 0],
  provenance: ["Provenance", provenanceView, true],
};
const present = Object.entries(VIEWS).filter(([, [, , there]]) => there);
const main = document.getElementById("main");

// Draws the view that is chosen; what had the focus keeps it, if it is still there.
function show(focus = false) {
  if (!present.some(([name]) => name === state.view)) state.view = "leaderboard";
  const label = document.activeElement?.closest("main label, main button")?.firstChild?.textContent;
  if (state.view !== "reasonings") task += 1;
  main.replaceChildren(...VIEWS[state.view][1]().flat(Infinity).filter(Boolean));
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === state.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.documentElement.dataset.view = state.view;
  if (focus) main.querySelector("h2").focus();
  else if (label) {
    const again = [...main.querySelectorAll("label, button")].find((one) => one.firstChild?.textContent === label);
    (again?.querySelector("select, input") ?? again)?.focus();
  }
}

const kept = {
  get: () => { try { return localStorage.getItem("r2ec-bench theme"); } catch { return null; } },
  set: (value) => { try { localStorage.setItem("r2ec-bench theme", value); } catch { /* a page inside another one keeps nothing */ } },
};
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const theme = h("button", { type: "button", onclick: () => { kept.set(document.documentElement.classList.contains("dark") ? "light" : "dark"); paint(); } },
  s("svg", { viewBox: "0 0 20 20", "aria-hidden": "true" }, s("circle", { cx: 10, cy: 10, r: 8, fill: "none", stroke: "currentColor", "stroke-width": 2 }), s("path", { d: "M10 2a8 8 0 0 1 0 16z", fill: "currentColor" })));

function paint() {
  const dark = kept.get() ? kept.get() === "dark" : prefersDark.matches;
  document.documentElement.classList.toggle("dark", dark);
  theme.setAttribute("aria-label", dark ? "Light colours" : "Dark colours");
  theme.title = dark ? "Light colours" : "Dark colours";
}

function go(event) {
  event.preventDefault();
  choose({ view: event.currentTarget.dataset.view });
  show(true);
}

document.querySelector("nav").append(...present.map(([name, [title]]) => h("a", { href: `#view=${name}`, "data-view": name, onclick: go }, title)), theme);
prefersDark.addEventListener("change", paint);
addEventListener("hashchange", () => { readAddress(); show(); });
let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; if (main.querySelector("figure")) show(); } });
readAddress();
paint();
show();
document.documentElement.dataset.ready = "yes";
