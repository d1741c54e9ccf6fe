/* The heat map is one stop of the Tab key; the arrow keys move in it. */
const tip = make('div', {class: 'tip', hidden: true, role: 'presentation'});
document.body.append(tip);

/* a square links to its evidence: its line names the topology, its column the check */
for (const table of all('table.heat')) {
  const checks = all('thead th', table).map((head) => head.textContent);
  for (const row of all('tbody tr', table)) {
    for (const cell of row.cells) {
      if (cell.cellIndex && cell.firstElementChild) cell.firstElementChild.href = `#row=${row.cells[0].textContent}/${checks[cell.cellIndex]}`;
    }
  }
  const squares = all('a.sq', table);
  squares.forEach((square, number) => { square.tabIndex = number ? -1 : 0; });
  table.addEventListener('keydown', (event) => {
    const step = {ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0]}[event.key];
    const cell = event.target.closest('td');
    if (!step || !cell) return;
    event.preventDefault();
    const rows = all('tbody tr', table);
    let row = rows.indexOf(cell.parentElement), column = cell.cellIndex, next = null;
    do {
      row += step[0]; column += step[1];
      next = rows[row] && rows[row].cells[column];
    } while (next && next.cellIndex && !by('a', next));
    const square = next && by('a', next);
    if (square) { event.target.tabIndex = -1; square.tabIndex = 0; square.focus(); }
  });
  const show = (event) => {
    const square = event.target.closest('a.sq');
    if (!square) { tip.hidden = true; return; }
    const place = square.getBoundingClientRect(), cell = square.parentElement;
    tip.textContent = `${checks[cell.cellIndex]} · ${cell.parentElement.cells[0].textContent}: ${square.textContent}`;
    tip.hidden = false;
    tip.style.left = `${Math.max(8, Math.min(place.left, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${place.top > 50 ? place.top - tip.offsetHeight - 6 : place.bottom + 6}px`;
  };
  table.addEventListener('mouseover', show);
  table.addEventListener('focusin', show);
  table.addEventListener('mouseleave', () => { tip.hidden = true; });
  table.addEventListener('focusout', () => { tip.hidden = true; });
}
