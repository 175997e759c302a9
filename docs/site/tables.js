// A click on a heading sorts its table: numbers as numbers, empty cells last.
"use strict";
document.querySelectorAll("article table").forEach((table) => {
  const body = table.tBodies[0];
  if (!table.tHead || !body || body.rows.length < 2) return;
  const value = (row, i) => {
    const text = row.cells[i] ? row.cells[i].textContent.trim() : "";
    const number = parseFloat(text.replace(/[,\s]/g, "").replace("−", "-"));
    return { text, number, empty: text === "" || text === "-" };
  };
  [...table.tHead.rows[0].cells].forEach((head, i) => {
    head.tabIndex = 0;
    head.setAttribute("aria-sort", "none");
    const sort = () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => ({ row, ...value(row, i) }));
      const numeric = rows.every((r) => r.empty || !Number.isNaN(r.number));
      rows.sort((a, b) => {
        if (a.empty || b.empty) return a.empty - b.empty;
        const order = numeric ? a.number - b.number : a.text.localeCompare(b.text);
        return down ? -order : order;
      });
      body.append(...rows.map((r) => r.row));
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
  });
});
