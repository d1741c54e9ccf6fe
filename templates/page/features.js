/* Filters of the feature map. The address holds them: #features=differs,silent&mode=transaction&q=lock */
const tools = by('#feature-tools');
if (tools) {
  tools.hidden = false;
  const map = by('table.map'), search = by('input', tools), output = by('output', tools);
  const heads = all('thead th', map).slice(1), chips = all('.chip', tools), choices = all('select', tools);
  const rows = all('tr[data-check]', map).map((row) => {
    const advice = by(`#${row.cells[0].getAttribute('aria-describedby')}`);
    return {row, advice, text: `${row.textContent} ${advice ? advice.textContent : ''}`.toLowerCase(), cells: [...row.cells].slice(1)};
  });
  const spanning = all('[colspan]', map), advices = all('.advice', map);
  /* an outcome links to its evidence: its row names the check, its column the topology */
  for (const {row, cells} of rows) {
    cells.forEach((cell, number) => { if (by('a', cell)) by('a', cell).href = `#row=${heads[number].dataset.name}/${row.dataset.check}`; });
  }
  const silent = new Set(['lost', 'wrong', 'leaks', 'mustnot']), practices = map.querySelector('[data-practices]');
  const word = (cell) => { const link = by('a', cell); return link ? link.className : ''; };

  function filter() {
    const pressed = chips.filter((chip) => chip.getAttribute('aria-pressed') === 'true').map((chip) => chip.dataset.filter);
    const chosen = choices.filter((choice) => choice.value);
    const asked = heads.map((head) => chosen.every((choice) => head.dataset[choice.dataset.choice] === choice.value));
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const visible = rows.filter(({row, text, cells}) => {
      const tried = cells.filter((cell, number) => asked[number] && word(cell));
      row.hidden = !(words.every((part) => text.includes(part))
        && (!pressed.includes('differs') || new Set(tried.map((cell) => cell.textContent)).size > 1)
        && (!pressed.includes('mustnot') || (practices && practices.contains(row)))
        && (!pressed.includes('silent') || tried.some((cell) => silent.has(word(cell))))
        && tried.length);
      return !row.hidden;
    });
    /* a topology that tried none of what is left is no column */
    const empty = heads.map((head, number) => asked[number] && visible.length > 0 && visible.every(({cells}) => !word(cells[number])));
    const hidden = heads.map((head, number) => !asked[number] || empty[number]);
    heads.forEach((head, number) => { head.hidden = hidden[number]; });
    for (const {cells} of rows) cells.forEach((cell, number) => { cell.hidden = hidden[number]; });
    for (const cell of spanning) cell.colSpan = 1 + hidden.filter((one) => !one).length;
    const given = new Set(visible.map(({advice}) => advice));
    for (const advice of advices) advice.hidden = !given.has(by('p', advice));
    all('tbody', map).forEach((body) => { body.hidden = all('tr[data-check]', body).every((row) => row.hidden); });
    const without = heads.filter((head, number) => empty[number]).map((head) => head.dataset.name);
    const left = without.length > 4 ? `${without.length} topologies` : without.join(', ');
    const must = (of) => of.filter(({row}) => practices && practices.contains(row)).length;
    const tail = must(visible) ? `, ${must(visible)} of ${must(rows)} practices` : '';
    output.textContent = `${visible.length - must(visible)} of ${rows.length - must(rows)} features${tail}${left ? `; none of them was tried in ${left}` : ''}`;
    return [pressed.join(','), ...chosen.map((choice) => `${choice.dataset.choice}=${choice.value}`), ...(search.value ? [`q=${search.value}`] : [])].join('&');
  }
  stack(map);
  const changed = () => { const state = filter(); if (state) go('features', state); else history.replaceState(null, '', '#features'); };
  for (const chip of chips) chip.addEventListener('click', () => { chip.setAttribute('aria-pressed', chip.getAttribute('aria-pressed') !== 'true'); changed(); });
  for (const choice of choices) choice.addEventListener('change', changed);
  search.addEventListener('input', changed);
  tools.addEventListener('submit', (event) => event.preventDefault());
  routes.set('features', (rest) => {
    const [pressed, ...settings] = rest.split('&');
    chips.forEach((chip) => chip.setAttribute('aria-pressed', pressed.split(',').includes(chip.dataset.filter)));
    const values = Object.fromEntries(settings.map((setting) => { const cut = setting.indexOf('='); return [setting.slice(0, cut), setting.slice(cut + 1)]; }));
    choices.forEach((choice) => { choice.value = values[choice.dataset.choice] || ''; });
    search.value = values.q || '';
    filter();
    by('#features').scrollIntoView();
  });
  filter();
}
