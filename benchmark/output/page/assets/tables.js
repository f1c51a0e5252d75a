// Tables that sort, filter and can be copied: the logic is TanStack Table's, the markup a plain table.

// columns: { id, head, value: row -> what sorts, cell: row -> node or text, text: row -> plain text (default: value), kind: "text" |
// "prose" | "" , fixed: true where sorting means nothing }. The first column names its row. label: what the region is called.
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
    body.replaceChildren(...shown.map((row) => h("tr", {}, columns.map((column, i) => {
      const attributes = i ? { class: column.kind } : { scope: "row", class: column.kind };
      return h(i ? "td" : "th", attributes, column.cell ? column.cell(row) : String(column.value(row) ?? ""));
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
    if (column.fixed) return h("th", { scope: "col", class: column.kind }, column.head);
    const cell = h("th", { scope: "col", class: column.kind, "aria-sort": "none" }, h("button", { type: "button", onclick: () => table.getColumn(column.id).toggleSorting() }, column.head));
    heads.set(column.id, cell);
    return cell;
  }));
  draw();
  const element = h("div", { class: "wide", role: "region", "aria-label": label, tabindex: 0 }, h("table", {}, caption ? h("caption", {}, h("span", {}, caption)) : null, h("thead", {}, head), body));
  return { element, shown: () => table.getRowModel().rows.map((row) => row.original), narrow: (wanted) => { current = { ...current, globalFilter: wanted || undefined }; return draw().length; } };
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
