// Elements from plain values. Text always becomes a text node, so that nothing of data or models is ever markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false && child !== ""));
  return element;
}

const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

const fixed = (value, digits = 4) => (value === null || value === undefined ? "" : value.toFixed(digits));
const signed = (value) => (value === null || value === undefined ? "" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(4));
const count = (value) => value.toLocaleString("en-US");
const many = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;
const probability = (p) => (p === null || p === undefined ? "" : p < 0.0001 ? "< .0001" : String(Number(p.toPrecision(2))));
const cost = (value) => (value >= 100 || value === 0 ? Math.round(value).toLocaleString("en-US") : String(Number(value.toPrecision(3))));

function select(label, value, options, onchange) {
  const choose = h("select", { onchange: (event) => onchange(event.target.value) });
  for (const [key, text] of options) choose.append(h("option", { value: key, selected: String(key) === String(value) }, text));
  return h("label", {}, label, choose);
}

function tick(label, checked, onchange) {
  return h("label", { class: "tick" }, h("input", { type: "checkbox", checked, onchange: (event) => onchange(event.target.checked) }), label);
}

// Says a short thing to a screen reader.
function tell(text) {
  document.getElementById("status").textContent = text;
}

// A mark whose meaning shows on hover, focus or tap; Escape hides it.
function noted(text, mark) {
  const tip = document.getElementById("tip");
  const hide = () => tip.matches(":popover-open") && tip.hidePopover();
  const show = (event) => {
    tip.textContent = text;
    if (!tip.matches(":popover-open")) tip.showPopover();
    const at = event.currentTarget.getBoundingClientRect();
    const room = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(at.left, innerWidth - room.width - 8))}px`;
    tip.style.top = `${at.bottom + room.height + 8 > innerHeight ? Math.max(8, at.top - room.height - 6) : at.bottom + 6}px`;
  };
  return h("button", {
    class: "dagger", type: "button", "aria-label": `${mark} ${text}`, onclick: show, onmouseenter: show, onfocus: show,
    onmouseleave: hide, onblur: hide, onkeydown: (event) => event.key === "Escape" && hide(),
  }, mark);
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = h("textarea", { "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  tell(`Copied as ${what}`);
}
