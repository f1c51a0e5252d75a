// Tables that sort, filter and can be copied: the logic is TanStack Table's, the markup a plain table.

const MANY = 9; // columns, beyond which they stand closer

// columns: { id, head, value: row -> what sorts, cell: row -> node or text, text: row -> plain text (default: value), kind: "text" |
// "prose" | "" , fixed: true where sorting means nothing }. The first column names its row; where its column has `once`, row -> key, rows
// of one key that stand below each other share one cell of it. label: what the region is called.
function dataTable({ label, caption, columns, rows, sorting = [], filter = "", onsort = () => {} }) {
  const table = TableCore.createTable({
    data: rows,
    columns: columns.map((column) => ({
      id: column.id, accessorFn: column.value, sortingFn: column.kind ? "alphanumeric" : "basic", sortUndefined: "last",
      sortDescFirst: !column.kind, enableSorting: !column.fixed,
    })),
    state: {}, onStateChange: () => {}, renderFallbackValue: null, enableMultiSort: false,
    getColumnCanGlobalFilter: () => true,
    globalFilterFn: (row, _, wanted) => wanted(row.original),
    getCoreRowModel: TableCore.getCoreRowModel(),
    getSortedRowModel: TableCore.getSortedRowModel(),
    getFilteredRowModel: TableCore.getFilteredRowModel(),
  });
  let current = { ...table.initialState, sorting, globalFilter: filter || undefined };
  const body = h("tbody");
  const heads = new Map();
  const draw = () => {
    table.setOptions((before) => ({ ...before, state: current }));
    for (const [id, head] of heads) {
      const sorted = table.getColumn(id).getIsSorted();
      head.setAttribute("aria-sort", sorted ? (sorted === "asc" ? "ascending" : "descending") : "none");
    }
    const shown = table.getRowModel().rows.map((row) => row.original);
    const spans = spansOf(shown, columns[0].once);
    body.replaceChildren(...shown.map((row, k) => h("tr", {}, columns.map((column, i) => {
      if (!i && !spans[k]) return null;
      const attributes = i ? {} : { scope: "row", rowspan: spans[k] > 1 ? spans[k] : null };
      return h(i ? "td" : "th", { class: column.kind, ...attributes }, column.cell ? column.cell(row) : String(column.value(row) ?? ""));
    }))));
    if (!shown.length) body.append(h("tr", {}, h("td", { class: "text", colspan: columns.length }, "Nothing here has that.")));
    return shown;
  };
  table.setOptions((before) => ({
    ...before,
    onStateChange: (change) => {
      current = typeof change === "function" ? change(current) : change;
      draw();
      onsort(current.sorting);
    },
  }));
  const head = h("tr", {}, columns.map((column) => {
    if (column.fixed) return h("th", { scope: "col", class: column.kind }, wholeWords(column.head));
    const cell = h("th", { scope: "col", class: column.kind, "aria-sort": "none" }, h("button", { type: "button", onclick: () => table.getColumn(column.id).toggleSorting() }, wholeWords(column.head)));
    heads.set(column.id, cell);
    return cell;
  }));
  draw();
  const element = h("div", { class: columns.length > MANY ? "wide dense" : "wide", role: "region", "aria-label": label, tabindex: 0 }, h("table", {}, caption ? h("caption", {}, h("span", {}, caption)) : null, h("thead", {}, head), body));
  return { element, shown: () => table.getRowModel().rows.map((row) => row.original), narrow: (wanted) => { current = { ...current, globalFilter: wanted || undefined }; return draw().length; } };
}

// A text whose words don't break at their hyphens, such as a dataset's name in a head.
function wholeWords(text) {
  if (!text.includes("-")) return [text];
  return text.split(" ").map((word, i) => [i ? " " : "", word.includes("-") ? h("span", { class: "whole" }, word) : word]);
}

// The number of rows that the first cell of each row spans: 0 where it is the one above, whose key is the same.
function spansOf(rows, once) {
  if (!once) return rows.map(() => 1);
  const spans = rows.map(() => 0);
  let first = 0;
  rows.forEach((row, k) => {
    if (once(row) !== once(rows[first])) first = k;
    spans[first] += 1;
  });
  return spans;
}

const plainOf = (column, row) => String((column.text ?? column.value)(row) ?? "");

function asMarkdown(columns, rows) {
  const cell = (text) => text.replace(/[\\|*_<>`[\]]/g, "\\$&").replace(/\s+/g, " ");
  const lines = [columns.map((column) => cell(column.head)), columns.map((column) => (column.kind ? ":--" : "--:")), ...rows.map((row) => columns.map((column) => cell(plainOf(column, row))))];
  return lines.map((line) => `| ${line.join(" | ")} |`).join("\n") + "\n";
}

const LATEX = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "†": "$^\\dagger$", "−": "$-$", "±": "$\\pm$" };

function asLatex(columns, rows) {
  const cell = (text) => text.replace(/[\\~^†−±]|[&%$#_{}]/g, (letter) => LATEX[letter] ?? `\\${letter}`);
  const line = (cells) => `${cells.map(cell).join(" & ")} \\\\`;
  const body = rows.map((row) => line(columns.map((column) => plainOf(column, row))));
  return ["% needs booktabs", `\\begin{tabular}{${columns.map((column) => (column.kind ? "l" : "r")).join("")}}`, "\\toprule", line(columns.map((column) => column.head)), "\\midrule", ...body, "\\bottomrule", "\\end{tabular}", ""].join("\n");
}

function asCsv(columns, rows) {
  const cell = (text) => (/[",\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text);
  return [columns.map((column) => cell(column.head)), ...rows.map((row) => columns.map((column) => cell(plainOf(column, row))))].map((line) => line.join(",")).join("\n") + "\n";
}

// Buttons that copy a table as it stands, in its order and filtered.
function copying(columns, table) {
  const forms = [["Markdown", asMarkdown], ["LaTeX", asLatex], ["CSV", asCsv]];
  return h("div", { class: "buttons" }, "Copy as", forms.map(([name, form]) => h("button", { type: "button", onclick: () => copy(form(columns, table.shown()), name) }, name)));
}
